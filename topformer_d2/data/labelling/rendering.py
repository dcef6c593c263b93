"""From what the labels of an image say to a label map on the disk and boxes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from ...errors import InputError, trouble_of_one
from ...files import file_stamp, write_beside
from ..formats.contract import BACKGROUND, DatasetFormat, LabelledImage, Problem
from .classes import ClassMap
from .drawing import draw, shape_box, shape_outline, to_pixels
from .matching import image_size
from .unknown import shown_value

# Of the values and labels without a class, those that are kept for one image.
_MOST_UNKNOWN = 100
# Changes with what the records or the label maps of the same files are.
VERSION = 3


class Item(NamedTuple):
    """An image and its labels.

    Attributes:
        file: path of the image below `root` of the Renderer.
        labels: of it.
    """

    file: str
    labels: LabelledImage


class Rendered(NamedTuple):
    """What became of an Item.

    Attributes:
        file: the item's.
        size: (width, height) of the image.
        label: name of the written label map; "" = none.
        boxes: (x0, y0, x1, y1, class, is a crowd) of each object.
        outlines: of a Renderer with them, the polygons of each object, [x0, y0, ...] in pixels;
            none where it is its box.
        unknown: {label or value without a class: its pixels or objects}; None = all have one.
        num_bytes: of the label map's file.
        problem: what is wrong, in which case there are no labels.
    """

    file: str
    size: tuple[int, int] = (0, 0)
    label: str = ""
    boxes: tuple[tuple[float, float, float, float, int, bool], ...] = ()
    unknown: Mapping[str, int] | None = None
    problem: Problem | None = None
    num_bytes: int = 0
    outlines: tuple[list[list[float]], ...] = ()


@dataclass(frozen=True)
class Renderer:
    """Makes label maps (8-bit PNGs of training ids) and boxes of a format's labels.

    Attributes:
        root: folder of the images.
        folder: of the label maps. One that is there already is not drawn again.
        format: of the labels.
        names: of the Labelling.
        pixels: the classes of the pixels; None = no label maps.
        boxes: the classes of the objects; None = no boxes.
        table: of a format with `decode`, what ClassMap.table gives.
        values: of the Labelling.
        ignore_value: the training id of pixels that are not learnt.
        background: the training id of pixels that no shape covers.
        with_outlines: objects have their outlines.
    """

    root: str
    folder: str
    format: DatasetFormat
    names: list[str]
    pixels: ClassMap | None = None
    boxes: ClassMap | None = None
    table: np.ndarray | None = field(default=None, repr=False)
    values: Mapping[int, str] = field(default_factory=dict)
    ignore_value: int = 255
    background: int = 255
    with_outlines: bool = False

    def __call__(self, item: Item) -> Rendered:
        image = os.path.join(self.root, item.file)
        source = item.labels.origin(image)
        try:
            width, height = image_size(image)
        except InputError as e:
            return Rendered(item.file, problem=Problem("unreadable file", image, str(e)))
        given = item.labels.width or width, item.labels.height or height
        if given != (width, height):
            message = (
                f"{image} is {width}x{height} pixels, but its labels in {source} are for an image "
                f"of {given[0]}x{given[1]}. Is it another file, or turned by its EXIF orientation?"
            )
            return Rendered(item.file, problem=Problem("sizes differ", image, message))
        try:
            if self.table is not None:
                return self._decoded(item, width, height)
            return self._drawn(item, width, height)
        except InputError as e:
            message = str(e) if source in str(e) else f"{source}: {e}"
            return Rendered(item.file, problem=Problem("malformed annotation", source, message))
        except (OSError, MemoryError) as e:
            trouble = trouble_of_one(e, source)
            if trouble is None:
                raise
            return Rendered(item.file, problem=Problem("unreadable file", source, trouble))

    def _decoded(self, item: Item, width: int, height: int) -> Rendered:
        files = item.labels.files
        assert self.format.decode is not None and self.table is not None
        name, path = self._place(item, (width, height), map(file_stamp, files))
        if not os.path.exists(path):
            values = self.format.decode(files, self.names)
            if values.shape != (height, width):
                what = f"{item.file} is {(height, width)} (height, width) and its label"
                message = f"{what} {files[0]} {values.shape}"
                return Rendered(item.file, problem=Problem("sizes differ", files[0], message))
            label = self.table[values]
            if label.min() < 0:
                found, counts = np.unique(values[label < 0], return_counts=True)
                pairs = zip(found.tolist(), counts.tolist(), strict=True)
                unknown = {shown_value(value, self.format): count for value, count in pairs}
                unknown = dict(list(unknown.items())[:_MOST_UNKNOWN])
                return Rendered(item.file, (width, height), unknown=unknown)
            _write(path, label.astype(np.uint8))
        return Rendered(item.file, (width, height), name, num_bytes=os.path.getsize(path))

    def _drawn(self, item: Item, width: int, height: int) -> Rendered:
        shapes = to_pixels(item.labels, height, width)
        unknown: dict[str, int] = {}
        for shape in shapes:
            for classes in filter(None, (self.pixels, self.boxes)):
                if classes.find(shape.label) is None and len(unknown) < _MOST_UNKNOWN:
                    unknown[shape.label] = unknown.get(shape.label, 0) + 1
        if unknown:
            return Rendered(item.file, (width, height), unknown=unknown)
        name, num_bytes = "", 0
        if self.pixels is not None:
            name, path = self._place(item, (width, height), ())
            if not os.path.exists(path):
                classes = [self.pixels.find(shape.label) for shape in shapes]
                values = [self.ignore_value if c is None or c < 0 else c for c in classes]
                drawn = list(zip(shapes, values, strict=True))
                _write(path, draw(drawn, height, width, self.background))
            num_bytes = os.path.getsize(path)
        boxes, outlines = [], []
        for shape in shapes if self.boxes is not None else ():
            assert self.boxes is not None
            index = self.boxes.find(shape.label)
            if index is None or index < 0 or shape.label == BACKGROUND:
                continue
            if (box := shape_box(shape, height, width)) is not None:
                boxes.append((*box, index, shape.is_crowd))
                if self.with_outlines:
                    outlines.append(shape_outline(shape, height, width))
        made = Rendered(item.file, (width, height), name, tuple(boxes), num_bytes=num_bytes)
        return made._replace(outlines=tuple(outlines))

    @cached_property
    def _recipe(self) -> str:
        """What the label maps of all images are made of."""
        classes = (self.names, self.pixels, sorted(self.values.items()))
        made_of = repr((VERSION, self.ignore_value, self.background, *classes))
        return hashlib.sha256(made_of.encode("utf-8", "replace")).hexdigest()

    def _place(
        self, item: Item, size: tuple[int, int], stamps: Iterable[object]
    ) -> tuple[str, str]:
        """The name and the path of a label map, which change with all that it is made of."""
        made_of = repr((self._recipe, item.file, size, item.labels, *stamps))
        digest = hashlib.sha256(made_of.encode("utf-8", "replace"))
        stem = os.path.splitext(os.path.basename(item.file))[0]
        name = f"{stem[:80]}-{digest.hexdigest()[:16]}.png"
        return name, os.path.join(self.folder, name)


def _write(path: str, label: np.ndarray) -> None:
    # Fast to write and to read; label maps stay small at any level.
    done, content = cv2.imencode(".png", label, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    write_beside(path, content.tobytes())
