"""What a format of datasets is: how the labels of images lie on the disk, and how they are read.

A format says what its files say, in its own words and pixels. Which classes a dataset has, which
image a label belongs to, drawing shapes as label maps and keeping all that for the next run is done
once for all formats, in data/labelling.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# What the pixels are called that no shape covers.
BACKGROUND = "background"


class Shape(NamedTuple):
    """One labelled object or region of an image.

    Attributes:
        label: its class, as the files call it.
        box: (x0, y0, x1, y1) in pixels; None = the smallest box around its polygons or mask.
        polygons: each (x0, y0, x1, y1, ...) in pixels; together they are one region, in which each
            is filled on its own. Empty = the region is the mask, or else the box.
        rle: of a mask of the whole image, as pycocotools takes it: {"size": [height, width],
            "counts": text or a list}; None = none.
        is_crowd: it stands for several objects. Boxes of crowds are not trained on.
    """

    label: str
    box: tuple[float, float, float, float] | None = None
    polygons: tuple[tuple[float, ...], ...] = ()
    rle: dict | None = None
    is_crowd: bool = False


class LabelledImage(NamedTuple):
    """The labels of one image: shapes, or files of a label for each pixel.

    Attributes:
        image: path or name of the image as the labels have it, or its stem alone.
        width, height: in pixels; None = as the image's file has them.
        shapes: in the order in which they are drawn: a later one covers an earlier one.
        files: of a format with `decode`, what that reads.
        is_relative: the coordinates of its shapes are shares of the image's width and height.
        source: the file to fix where something is wrong with its labels.
        id: the number by which the files call it, as COCO's do; None = they do not.
    """

    image: str
    width: int | None = None
    height: int | None = None
    shapes: tuple[Shape, ...] = ()
    files: tuple[str, ...] = ()
    is_relative: bool = False
    source: str = ""
    id: int | None = None

    def origin(self, otherwise: str) -> str:
        """`source`, or else the first of `files`, or else another file."""
        return self.source or next(iter(self.files), otherwise)


class Problem(NamedTuple):
    """One thing that is wrong with a dataset's labels.

    Attributes:
        kind: a key of inspection.SEVERITY.
        file: the file to fix.
        message: what is wrong and the fix, with the file's name.
    """

    kind: str
    file: str
    message: str


@dataclass
class Labelling:
    """What the files of a dataset say.

    Attributes:
        images: those that have labels, even if they have no shapes.
        names: of the classes, in the format's own order: those that the files declare, or else
            those that are used, sorted. Empty = a format with `decode` whose values have no names.
        values: of a format with `decode`, {value of a pixel: its name in `names`}; empty = a value
            is the index of its class.
        colors: {name: (red, green, blue)}, 0..255, of those that have one.
        problems: what is wrong; the labels concerned are left out.
        ids: {number of a class in the files: its name in `names`}, as text, of shapes whose files
            number their classes, as COCO's and YOLO's do.
    """

    images: list[LabelledImage]
    names: list[str]
    values: dict[int, str] = field(default_factory=dict)
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetFormat:
    """One format of datasets; a module of this package defines it.

    Attributes:
        name: as FORMAT of an entry of DATASETS.FOLDERS takes it.
        tasks: that its labels can be for: "sem_seg" (pixels), "instances" (boxes) or both.
        detect: from the path of the labels, a file or a folder that exists, and the folder of the
            images to whether they are of this format, which it tells by a few files. It raises
            nothing.
        read: from the same two to what the files say. InputError where nothing can be read; what
            is wrong with one file of many is among the Labelling's problems.
        decode: of a format with a label for each pixel: from a LabelledImage's files and its
            Labelling's names to (height, width) integers from 0 to 2**24 - 1, which
            Labelling.values has; InputError where a file cannot be read. A colour's value is
            red * 65536 + green * 256 + blue. None = the labels are shapes.
        has_colors: the values are colours.
        beyond: from the same two as `detect` to files and folders outside of them that `read` looks
            at, or would if they were there, such as a table of names above the labels. It raises
            nothing. None = there are none.
    """

    name: str
    tasks: tuple[str, ...]
    detect: Callable[[str, str], bool]
    read: Callable[[str, str], Labelling]
    decode: Callable[[Sequence[str], Sequence[str]], np.ndarray] | None = None
    has_colors: bool = False
    beyond: Callable[[str, str], list[str]] | None = None


def paths_above(path: str, names: Sequence[str]) -> list[str]:
    """Where files of these names would be in the two folders above `path`."""
    above = os.path.dirname(os.path.abspath(path))
    return [
        os.path.join(place, name) for place in (above, os.path.dirname(above)) for name in names
    ]
