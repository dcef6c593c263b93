"""The XML that CVAT exports as "CVAT for images 1.1", one file a task or project.

Source: https://docs.cvat.ai/docs/manual/advanced/xml_format
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable

from ...errors import InputError, shortened
from .contract import DatasetFormat, LabelledImage, Labelling, Shape
from .groups import join_groups
from .regions import ellipse, place_mask, rows_mask, turned_box
from .shape_files import (
    MALFORMED,
    MAX_DATASET_BYTES,
    NOT_USED,
    Faults,
    ImageNames,
    one_file,
    used_names,
)
from .values import class_name, clean_name, hex_color, image_size, number, whole
from .xml_files import elements, root_tag

_CHOOSE = 'choose the export "CVAT for images 1.1"'
# Elements of an image that have no region.
_WITHOUT_REGION = ("polyline", "points", "cuboid", "skeleton", "tag")
_MOST_RUNS = 1 << 24


def detect(path: str, images: str) -> bool:
    """Whether it is CVAT's XML, or a folder whose only XML is one; for images or for video."""
    file = one_file(path, ".xml")
    return file is not None and root_tag(file) == "annotations"


def read(path: str, images: str) -> Labelling:
    """What the file says: shapes by their z_order, those of one label and group as one object.

    Raises:
        InputError: it is not CVAT's XML for images, or none of its images can be used.
    """
    file = one_file(path, ".xml")
    if file is None:
        raise InputError(f"{path} is not one .xml file of CVAT: {_CHOOSE} and name annotations.xml")
    faults, folder = Faults(file), ImageNames(images)
    found: list[LabelledImage] = []
    names: dict[str, None] = {}
    colors: dict[str, tuple[int, int, int]] = {}
    unused: Counter = Counter()
    tags: Counter = Counter()
    for element in elements(file, MAX_DATASET_BYTES):
        tags[element.tag] += 1
        if element.tag == "meta":
            _read_labels(element, names, colors, faults)
        elif element.tag == "track":
            raise InputError(
                f"{file} is CVAT's XML for video, whose shapes are interpolated between frames: "
                f"{_CHOOSE}, with the images"
            )
        elif element.tag == "image":
            try:
                found.append(_read_image(element, file, folder, faults, unused))
            except InputError as e:
                faults.add(MALFORMED, e)
    for kind, count in unused.items():
        faults.add(NOT_USED, f"{count} of <{kind}> have no region and are left out")
    if not found:
        problems = faults.problems()
        why = problems[0].message if problems else f"it has {dict(tags.most_common(5))}"
        raise InputError(f"{file} has no <image> that can be used: {why}: {_CHOOSE}")
    names |= dict.fromkeys(used_names(found))
    return Labelling(found, list(names), colors=colors, problems=faults.problems())


def _read_labels(
    meta: ET.Element,
    names: dict[str, None],
    colors: dict[str, tuple[int, int, int]],
    faults: Faults,
) -> None:
    """Add the labels that the task, job or project declares, in their order."""
    for label in meta.iterfind("./*/labels/label"):
        # Points of a skeleton have a parent.
        if label.findtext("parent") or label.findtext("type") in ("skeleton", "tag"):
            continue
        try:
            name = class_name(label.findtext("name"), "a label of <meta>")
        except InputError as e:
            faults.add(MALFORMED, e)
            continue
        names[name] = None
        if color := hex_color(label.findtext("color")):
            colors[name] = color


def _read_image(
    element: ET.Element, file: str, folder: ImageNames, faults: Faults, unused: Counter
) -> LabelledImage:
    name = clean_name(element.get("name"), "the 'name' of an <image>")
    size = image_size(element.get("width"), element.get("height"))
    shapes = []
    for index, entry in enumerate(element):
        if entry.tag in _WITHOUT_REGION:
            unused[entry.tag] += 1
            continue
        if entry.get("outside") == "1":
            continue
        what = f"<{shortened(entry.tag, 30)}> {index + 1} of image {name!r}"
        try:
            if (reader := _READERS.get(entry.tag)) is None:
                raise InputError(f"{what} is no shape of CVAT")
            label = class_name(entry.get("label"), what)
            shape = reader(entry, label, size, what)
            order = number(entry.get("z_order", "0"), f"z_order of {what}", 2**53)
            group = entry.get("group_id", "0").strip()
            shapes.append((order, shape, None if group in ("0", "") else group))
        except InputError as e:
            faults.add(MALFORMED, e)
    shapes.sort(key=lambda each: each[0])
    joined = join_groups([(shape, group) for _, shape, group in shapes], size)
    image = folder.pick([name, os.path.basename(name)])
    return LabelledImage(image, *(size or (None, None)), tuple(joined), source=file)


def _numbers(entry: ET.Element, keys: str, what: str) -> list[float]:
    return [number(entry.get(key), f"{key} of {what}") for key in keys.split()]


def _box(entry: ET.Element, label: str, size: tuple[int, int] | None, what: str) -> Shape:
    x0, y0, x1, y1 = _numbers(entry, "xtl ytl xbr ybr", what)
    box = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    if degrees := number(entry.get("rotation", "0"), f"rotation of {what}"):
        return Shape(label, polygons=(turned_box(box, degrees),))
    return Shape(label, box)


def _polygon(entry: ET.Element, label: str, size: tuple[int, int] | None, what: str) -> Shape:
    pairs = [pair.split(",") for pair in entry.get("points", "").split(";") if pair.strip()]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{what}: its 'points' are not 3 or more of x,y with ; between them")
    points = (number(each, f"a point of {what}") for pair in pairs for each in pair)
    return Shape(label, polygons=(tuple(points),))


def _ellipse(entry: ET.Element, label: str, size: tuple[int, int] | None, what: str) -> Shape:
    x, y, rx, ry = _numbers(entry, "cx cy rx ry", what)
    degrees = number(entry.get("rotation", "0"), f"rotation of {what}")
    return Shape(label, polygons=(ellipse(x, y, rx, ry, degrees),))


def _mask(entry: ET.Element, label: str, size: tuple[int, int] | None, what: str) -> Shape:
    if size is None:
        raise InputError(f"{what} is a mask, and the image's width or height is missing")
    left, top, width, height = (
        whole(entry.get(key), f"{key} of {what}") for key in ("left", "top", "width", "height")
    )
    runs = entry.get("rle", "").split(",")
    if len(runs) > _MOST_RUNS or not all(run.strip().isdecimal() for run in runs):
        raise InputError(f"{what}: its 'rle' {shortened(entry.get('rle'), 60)} is not integers")
    if any(len(run) > 12 for run in runs):
        raise InputError(f"{what}: its 'rle' has a run that is longer than the mask")
    mask = rows_mask([int(run) for run in runs], width, height, what)
    return Shape(label, rle=place_mask(mask, left, top, size, what))


_READERS: dict[str, Callable[[ET.Element, str, tuple[int, int] | None, str], Shape]] = {
    "box": _box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
}

FORMAT = DatasetFormat("cvat", ("sem_seg", "instances"), detect, read)
