"""COCO's JSON as tools really write it: polygons, masks and boxes.

Source: https://cocodataset.org/#format-data; what Roboflow, CVAT, Label Studio, labelme2coco,
supervision and datumaro write instead of it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any
from urllib.parse import unquote

from ...errors import InputError, shortened
from ..source_cache import without_collection
from .contract import DatasetFormat, LabelledImage, Labelling, Shape
from .regions import area_of, check_rle
from .shape_files import (
    DUPLICATE,
    MALFORMED,
    MAX_DATASET_BYTES,
    Faults,
    ImageNames,
    has_texts,
    head_of,
    load_json,
    one_file,
    small_json,
)
from .values import checked_numbers, class_name, clean_name, hex_color, image_size, number

_ROBOFLOW = "_annotations.coco.json"
_PARSED = 32 << 20  # bytes of a file that a detection parses
_TRUE = (1, True, 1.0, "1", "true", "True")
_FALSE = (0, None, False, 0.0, "0", "false", "False", "")


def detect(path: str, images: str) -> bool:
    """Whether it is a COCO JSON of objects, or a folder with Roboflow's or a single JSON."""
    file = _file(path)
    if file is None or not head_of(file, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    try:
        if os.path.getsize(file) > _PARSED:
            return has_texts(file, '"images"', '"annotations"', '"categories"', '"category_id"')
    except OSError:
        return False
    content = small_json(file)
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    )


def _file(path: str) -> str | None:
    if os.path.isfile(file := os.path.join(path, _ROBOFLOW)):
        return file
    return one_file(path, ".json")


@without_collection()
def read(path: str, images: str) -> Labelling:
    """What the file says. Shapes are drawn by their area, the largest first, crowds before all.

    Their area is "area", or else their box's, polygons' or mask's. All images that are listed are
    labelled, also without an object. Of annotations of one image, class and box, one is kept.

    Raises:
        InputError: it is not a COCO JSON of objects, or none of its annotations can be used.
    """
    file = _file(path)
    if file is None:
        raise InputError(f"{path} is not one COCO .json file: name it")
    content = load_json(file, MAX_DATASET_BYTES)
    for part in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise InputError(f"{file} is not a COCO JSON of objects: it has no list {part!r}")
    faults, folder = Faults(file), ImageNames(images)
    annotations = content.pop("annotations")
    if annotations and isinstance(annotations[0], dict) and "segments_info" in annotations[0]:
        raise InputError(
            f"{file} is COCO's JSON of panoptic labels, whose pixels are in PNGs: name the JSON of "
            "instances, or use the PNGs"
        )
    names, colors = _read_categories(content["categories"], annotations, file, faults)
    found = _read_images(content["images"], file, folder, faults)
    if not found:
        raise InputError(f"{file} has no image that can be used: {_first(faults, 'it lists none')}")
    count = len(annotations)
    used = _add_shapes(annotations, names, found, faults)
    if count and not used:
        raise InputError(
            f"{file}: none of its {count} annotations can be used: {_first(faults, '')}"
        )
    ordered = dict.fromkeys(names.values())
    ids = {str(key): name for key, name in names.items()}
    return Labelling(list(found.values()), list(ordered), {}, colors, faults.problems(), ids)


def _first(faults: Faults, otherwise: str) -> str:
    problems = faults.problems()
    return problems[0].message if problems else otherwise


def _id(value: object) -> Hashable:
    """An id, the same whether it is written as a number or as text; None where it is neither."""
    if type(value) is int:
        return value
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(text) if text.isdecimal() and len(text) < 16 else text
    if type(value) is float and value == value and abs(value) < 2**53 and value == int(value):
        return int(value)
    return None


def _id_of(entry: Any, where: str) -> Hashable:
    key = _id(entry.get("id")) if isinstance(entry, dict) else None
    if key is None:
        raise InputError(f"{where} is {shortened(entry, 80)}; it needs an 'id'")
    return key


def _read_categories(
    entries: list, annotations: list, file: str, faults: Faults
) -> tuple[dict[Hashable, str], dict[str, tuple[int, int, int]]]:
    """{id: name} by the ids, without a super-class that no annotation uses, and the colours."""
    names: dict[Hashable, str] = {}
    colors = {}
    parents = set()
    for index, entry in enumerate(entries):
        try:
            key = _id_of(entry, f"categories[{index}]")
            name = class_name(entry.get("name"), f"category {shortened(key, 40)}")
            if names.setdefault(key, name) != name:
                raise InputError(f"category {shortened(key, 40)} stands there twice; rename one")
        except InputError as e:
            faults.add(MALFORMED, e)
            continue
        if color := hex_color(entry.get("color")):
            colors[name] = color
        parent = entry.get("supercategory")
        if isinstance(parent, str) and parent.strip() != name:
            parents.add(parent.strip())
    if not names:
        raise InputError(f"{file} has no category that can be used: {_first(faults, 'add them')}")
    # Roboflow's exports begin with one that stands for all others.
    if names.get(0) in parents and not any(
        isinstance(a, dict) and _id(a.get("category_id")) == 0 for a in annotations
    ):
        colors.pop(names.pop(0), None)
    numbers = sorted(key for key in names if isinstance(key, int))
    texts = sorted(key for key in names if isinstance(key, str))
    return {key: names[key] for key in (*numbers, *texts)}, colors


def _read_images(
    entries: list, file: str, folder: ImageNames, faults: Faults
) -> dict[Hashable, LabelledImage]:
    """{id: the image without its shapes}."""
    found: dict[Hashable, LabelledImage] = {}
    for index, entry in enumerate(entries):
        try:
            key = _id_of(entry, f"images[{index}]")
            name = clean_name(entry.get("file_name"), f"'file_name' of images[{index}]")
            if key in found:
                raise InputError(
                    f"the id {shortened(key, 40)} is of {found[key].image!r} and of {name!r}: give "
                    "each image its own, in its annotations as well"
                )
        except InputError as e:
            faults.add(MALFORMED, e)
            continue
        if "%" in name:
            name = folder.pick((name, unquote(name)))
        width, height = image_size(entry.get("width"), entry.get("height")) or (None, None)
        number = key if isinstance(key, int) else None
        found[key] = LabelledImage(name, width, height, source=file, id=number)
    return found


def _add_shapes(
    annotations: list,
    names: dict[Hashable, str],
    images: dict[Hashable, LabelledImage],
    faults: Faults,
) -> int:
    """Give the images their shapes, in the order of drawing; returns how many there are."""
    shapes: dict[Hashable, list[tuple[bool, float, Shape]]] = {}
    seen: dict[Hashable, set] = {}
    count = 0
    for index, annotation in enumerate(annotations):
        annotations[index] = None  # it takes most of the memory
        try:
            if not isinstance(annotation, dict):
                raise InputError(f"it is {shortened(annotation, 60)}")
            image = _id(annotation.get("image_id"))
            if image not in images:
                raise InputError(
                    f"its image_id {shortened(annotation.get('image_id'), 40)} is not among the "
                    "'images'"
                )
            label = names.get(_id(annotation.get("category_id")))
            if label is None:
                raise InputError(
                    f"its category_id {shortened(annotation.get('category_id'), 40)} is not among "
                    "the 'categories'"
                )
            shape = _shape(annotation, label)
            key = _identity(shape)
            if key in (known := seen.setdefault(image, set())):
                raise _DuplicateError("another one has its image, class and box: remove one")
            known.add(key)
            entry = (not shape.is_crowd, -_area(annotation, shape), shape)
            shapes.setdefault(image, []).append(entry)
            count += 1
        except InputError as e:
            kind = DUPLICATE if isinstance(e, _DuplicateError) else MALFORMED
            faults.add(kind, f"{_place(annotation, index, images)}: {e}")
    for image, entries in shapes.items():
        entries.sort(key=lambda entry: entry[:2])
        images[image] = images[image]._replace(shapes=tuple(shape for *_, shape in entries))
    return count


class _DuplicateError(InputError):
    """An annotation that is there already."""


def _place(annotation: Any, index: int, images: dict[Hashable, LabelledImage]) -> str:
    if not isinstance(annotation, dict):
        return f"annotations[{index}]"
    image = images.get(_id(annotation.get("image_id")))
    of = f" of {image.image}" if image else ""
    return f"annotation {shortened(annotation.get('id', f'number {index + 1}'), 40)}{of}"


def _identity(shape: Shape) -> tuple:
    if (box := shape.box) is not None and box[0] < box[2] and box[1] < box[3]:
        return shape.label, box
    # Some tools write a box of zeros beside each polygon.
    return shape.label, shape.polygons, str(shape.rle) if shape.rle else box


def _shape(annotation: dict, label: str) -> Shape:
    crowd = annotation.get("iscrowd") or annotation.get("ignore")
    if type(crowd) in (list, dict) or crowd not in (*_TRUE, *_FALSE):
        raise InputError(f"its iscrowd is {shortened(crowd, 40)}; it takes 0 or 1")
    polygons, rle = _region(annotation.get("segmentation"))
    box = _box(annotation.get("bbox"))
    if box is None and not polygons and rle is None:
        raise InputError("it has neither a 'segmentation' nor a 'bbox'; remove it or label it anew")
    return Shape(label, box, polygons, rle, crowd in _TRUE)


def _box(bbox: Any) -> tuple[float, float, float, float] | None:
    if bbox is None or bbox == []:
        return None
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise InputError(f"its bbox is {shortened(bbox, 60)}; it takes x, y, width, height")
    x, y, w, h = checked_numbers(bbox, "the bbox")
    if w < 0 or h < 0:
        raise InputError(f"its bbox {bbox} has a negative width or height")
    return x, y, x + w, y + h


def _region(value: Any) -> tuple[tuple[tuple[float, ...], ...], dict | None]:
    """The polygons or the RLE of a "segmentation"; neither where the region is the box."""
    if value is None or value == [] or value == {}:
        return (), None
    if isinstance(value, dict):
        return (), check_rle(value, "the segmentation")
    if not isinstance(value, list):
        raise InputError(f"its segmentation is {shortened(value, 60)}; it takes polygons or an RLE")
    # One polygon alone is written by some tools.
    parts = value if isinstance(value[0], list) else [value]
    polygons = []
    for part in parts:
        if not isinstance(part, list) or len(part) % 2:
            raise InputError(
                f"its segmentation has the polygon {shortened(part, 60)}; it takes x, y, x, y, ..."
            )
        # A line that is left of a region has no area.
        if len(part) >= 6:
            polygons.append(checked_numbers(part, "the segmentation"))
    return tuple(polygons), None


def _area(annotation: dict, shape: Shape) -> float:
    area = annotation.get("area")
    if type(area) in (int, float) and 0 < area < 2**53:
        return area
    if isinstance(area, str):
        try:
            if (area := number(area, "area", 2**53)) > 0:
                return area
        except InputError:
            pass
    return area_of(shape)


FORMAT = DatasetFormat("coco", ("sem_seg", "instances"), detect, read)
