"""Supervisely's JSON files, one an image, of a project or a dataset.

Source: https://docs.supervisely.com/data-organization/00_ann_format_navi
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from ...errors import InputError, shortened
from .contract import DatasetFormat, LabelledImage, Labelling, Problem, Shape, paths_above
from .regions import box_around, place_mask, png_mask, polygon_with_holes
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
from .values import class_name, entries_of, flat_points, hex_color, image_size, whole

_FORMAT = "Supervisely's JSON, a folder ann of one for each image"
_ANN = "ann"
_META = "meta.json"
_LEVELS = 3  # the folder ann, and two above
_SIDE = ("meta.json", "obj_class_to_machine_color.json")


def detect(path: str, images: str) -> bool:
    """Whether it is a project, a dataset or the folder ann of one."""
    if not is_folder(path):
        return False
    try:
        folder = _folder(path, images)
    except InputError:
        # A project of several datasets; it is told which to name.
        folder = os.path.join(path, (_datasets(path) or [""])[0], _ANN)
    files = [f for f in first_files(folder, ".json") if os.path.basename(f) not in _SIDE]
    return any(_is_annotation(small_json(file)) for file in files)


def _is_annotation(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("objects"), list)
        and isinstance(content.get("size"), dict)
    )


def _datasets(path: str) -> list[str]:
    """Names of the folders in a project that have a folder ann."""
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return []
    return [name for name in names if os.path.isdir(os.path.join(path, name, _ANN))]


def _folder(path: str, images: str) -> str:
    """The folder ann that belongs to the images.

    Raises:
        InputError: it is a project of several datasets, and the images are in none of them.
    """
    if os.path.isdir(inside := os.path.join(path, _ANN)):
        return inside
    datasets = _datasets(path)
    if not datasets:
        return path
    if len(datasets) > 1:
        parts = os.path.relpath(os.path.realpath(images or "."), os.path.realpath(path)).split(
            os.sep
        )
        if parts[0] not in datasets:
            raise InputError(
                f"{path} is a project of the datasets {datasets[:8]}: name one of them, or give "
                "the images in its folder img"
            )
        datasets = [parts[0]]
    return os.path.join(path, datasets[0], _ANN)


def read(path: str, images: str) -> Labelling:
    """What the files say; objects are drawn in their order in a file, as Supervisely does.

    Raises:
        InputError: there are no such files, none can be used, or meta.json is wrong.
    """
    folder = _folder(path, images)
    files = [
        file
        for file in files_of(folder, ".json", "Supervisely has for each image")
        if os.path.basename(file) not in _SIDE
    ]
    if not files:
        raise InputError(f"{folder} has no JSON of an image: it takes {_FORMAT}")
    names, colors, told = _read_meta(folder)
    placed, problems = read_images(_parse, files, images)
    names |= dict.fromkeys(used_names(placed))
    return Labelling(placed, list(names), colors=colors, problems=told + problems)


def _read_meta(
    folder: str,
) -> tuple[dict[str, None], dict[str, tuple[int, int, int]], list[Problem]]:
    """The classes of meta.json, which is up to two levels above, in order, and their colours."""
    folder = os.path.abspath(folder)
    names: dict[str, None] = {}
    colors = {}
    for _ in range(_LEVELS):
        if os.path.isfile(file := os.path.join(folder, _META)):
            faults = Faults(file)
            meta = load_json(file)
            classes = meta.get("classes") if isinstance(meta, dict) else None
            for index, entry in entries_of(classes, f"{file}: 'classes'"):
                try:
                    if not isinstance(entry, dict):
                        raise InputError(f"classes[{index}] is {shortened(entry, 60)}: no class")
                    name = class_name(entry.get("title"), f"classes[{index}]")
                except InputError as e:
                    faults.add(MALFORMED, e)
                    continue
                names[name] = None
                if color := hex_color(entry.get("color")):
                    colors[name] = color
            return names, colors, faults.problems()
        folder = os.path.dirname(folder)
    return names, colors, []


def _parse(file: str) -> ParsedFile:
    content = load_json(file)
    if not _is_annotation(content):
        raise InputError(f"{file} has no 'size' and 'objects': it takes {_FORMAT}")
    size = image_size(content["size"].get("width"), content["size"].get("height"))
    faults = Faults(file)
    unused: Counter = Counter()
    shapes = []
    for index, entry in enumerate(content["objects"]):
        try:
            if not isinstance(entry, dict):
                raise InputError(f"objects[{index}] is {shortened(entry, 60)}; it takes an object")
            kind = entry.get("geometryType", entry.get("shape"))
            if kind not in ("polygon", "rectangle", "bitmap"):
                unused[shortened(kind, 40).strip("'")] += 1
                continue
            shapes.append(_shape(entry, kind, size, f"objects[{index}]"))
        except InputError as e:
            faults.add(MALFORMED, e)
    for kind, count in unused.items():
        faults.add(NOT_USED, f"{count} objects of the geometry {kind!r} are left out")
    # "a.jpg.json", and "a.json" of older projects.
    name = os.path.splitext(os.path.basename(file))[0]
    labels = LabelledImage(name, *(size or (None, None)), tuple(shapes), source=file)
    return ParsedFile(labels, (name,), faults.problems())


def _shape(entry: dict, kind: str, size: tuple[int, int] | None, where: str) -> Shape:
    label = class_name(entry.get("classTitle"), where)
    what = f"{where} of {label!r}"
    if kind == "bitmap":
        bitmap = entry.get("bitmap")
        origin = bitmap.get("origin") if isinstance(bitmap, dict) else None
        if not isinstance(origin, list) or len(origin) != 2:
            raise InputError(f"{what} has no bitmap with an origin [x, y]: export it anew")
        left, top = (whole(each, f"the origin of {what}") for each in origin)
        if size is None:
            raise InputError(f"{what} is a bitmap, and 'size' of the image is missing or wrong")
        mask = png_mask(bitmap.get("data"), what, packed=True)
        return Shape(label, rle=place_mask(mask, left, top, size, what))
    points = entry.get("points")
    if not isinstance(points, dict):
        raise InputError(f"{what} has the points {shortened(points, 60)}; it takes an exterior")
    if kind == "rectangle":
        return Shape(label, box_around(flat_points(points.get("exterior"), what, 2)))
    outer = flat_points(points.get("exterior"), what)
    inner = points.get("interior") or []
    holes = [
        flat_points(hole, f"a hole of {what}")
        for _, hole in entries_of(inner, f"'interior' of {what}")
    ]
    if not holes:
        return Shape(label, polygons=(outer,))
    if size is None:
        raise InputError(f"{what} has holes, and 'size' of the image is missing or wrong")
    return Shape(label, rle=polygon_with_holes(outer, holes, size, what))


def _beyond(path: str, images: str) -> list[str]:
    return paths_above(path, (_META,))


FORMAT = DatasetFormat("supervisely", ("sem_seg", "instances"), detect, read, beyond=_beyond)
