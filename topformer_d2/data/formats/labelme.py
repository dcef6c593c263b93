"""LabelMe's JSON files, one an image.

Source: what labelme 4 to 6 writes (labelme/_label_file.py, labelme/utils/shape.py of
https://github.com/wkentaro/labelme).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Any

from ...errors import InputError, shortened
from .contract import DatasetFormat, LabelledImage, Labelling, Shape
from .groups import join_groups
from .regions import box_around, ellipse, place_mask, png_mask
from .shape_files import (
    MALFORMED,
    NOT_USED,
    Faults,
    ParsedFile,
    files_of,
    first_files,
    is_folder,
    load_json,
    read_images,
    small_json,
    used_names,
)
from .values import class_name, clean_name, entries_of, flat_points, image_size

# Shapes that have no region.
_WITHOUT_REGION = ("line", "linestrip", "point", "points")


def detect(path: str, images: str) -> bool:
    """Whether a folder has JSON files with LabelMe's shapes."""
    return is_folder(path) and any(
        _is_labelme(small_json(file)) for file in first_files(path, ".json")
    )


def _is_labelme(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("shapes"), list)
        and any(key in content for key in ("imagePath", "imageData", "imageHeight", "version"))
    )


def read(path: str, images: str) -> Labelling:
    """What the folder's files say; shapes are drawn in their order in a file, as LabelMe does.

    Shapes of one label and one group_id are one object.

    Raises:
        InputError: the folder has no JSON, or none of them can be used.
    """
    files = files_of(path, ".json", "LabelMe writes beside each image")
    placed, problems = read_images(_parse, files, images)
    return Labelling(placed, used_names(placed), problems=problems)


def _parse(file: str) -> ParsedFile:
    content = load_json(file)
    if not _is_labelme(content):
        raise InputError(
            f"{file} is not a JSON of LabelMe: it has no 'shapes'; move it out of the folder"
        )
    faults = Faults(file)
    size = image_size(content.get("imageWidth"), content.get("imageHeight"))
    unused: Counter = Counter()
    shapes = []
    for index, entry in entries_of(content["shapes"], f"{file}: 'shapes'"):
        try:
            kind = entry.get("shape_type", "polygon") if isinstance(entry, dict) else None
            if kind in _WITHOUT_REGION:
                unused[kind] += 1
                continue
            shapes.append(_shape(entry, kind, size, f"shapes[{index}]"))
        except InputError as e:
            faults.add(MALFORMED, e)
    for kind, count in unused.items():
        faults.add(
            NOT_USED,
            f"{count} shapes of the type {kind!r} have no region and are left out; draw polygons "
            "where they are objects",
        )
    try:
        joined = join_groups(shapes, size)
    except InputError as e:
        faults.add(MALFORMED, e)
        joined = [shape for shape, _ in shapes]
    stem = os.path.splitext(os.path.basename(file))[0]
    candidates = [stem]
    try:
        # An image may have been renamed together with its JSON.
        named = clean_name(content.get("imagePath"), "imagePath")
        is_same = os.path.splitext(os.path.basename(named))[0] == stem
        candidates = [named] if is_same else [stem, named]
    except InputError:
        pass
    labels = LabelledImage(candidates[0], *(size or (None, None)), tuple(joined), source=file)
    return ParsedFile(labels, tuple(candidates), faults.problems())


def _shape(
    entry: Any, kind: object, size: tuple[int, int] | None, where: str
) -> tuple[Shape, object]:
    """A shape and its group."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {shortened(entry, 60)}; it takes a shape")
    label = class_name(entry.get("label"), where)
    what = f"{where} of {label!r}"
    group = entry.get("group_id")
    if group is not None and type(group) not in (int, str):
        raise InputError(f"{what} has the group_id {shortened(group, 60)}; it takes an integer")
    least = {"rectangle": 2, "circle": 2, "mask": 2}.get(str(kind), 3)
    points = flat_points(entry.get("points"), what, least)
    if kind in ("polygon", "oriented_rectangle", None):
        return Shape(label, polygons=(points,)), group
    if least == 2 and len(points) != 4 and kind != "rectangle":
        raise InputError(f"{what} is a {kind} with {len(points) // 2} points; it takes 2")
    if kind == "rectangle":  # of 2 corners; other tools write 4
        return Shape(label, box_around(points)), group
    if kind == "circle":
        x, y, px, py = points
        radius = math.hypot(px - x, py - y)
        return Shape(label, polygons=(ellipse(x, y, radius, radius),)), group
    if kind == "mask":
        if size is None:
            raise InputError(f"{what} is a mask, and imageWidth or imageHeight is missing")
        mask = png_mask(entry.get("mask"), what)
        left, top = int(points[0]), int(points[1])
        return Shape(label, rle=place_mask(mask, left, top, size, what)), group
    raise InputError(
        f"{what} has the shape_type {shortened(kind, 60)}, which LabelMe does not have"
    )


FORMAT = DatasetFormat("labelme", ("sem_seg", "instances"), detect, read)
