"""PASCAL VOC's XML, one an image, as LabelImg, Roboflow and others write it.

Source: the devkit's documentation (VOC2012), section 4; what Roboflow's export "Pascal VOC" has.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from typing import NamedTuple

from ...errors import InputError
from ..prepare.opening import MAX_BYTES
from ..prepare.voc_files import VocObject
from .contract import DatasetFormat, LabelledImage, Labelling, Problem, Shape
from .parallel import parse_some
from .shape_files import MALFORMED, Faults, ImageNames, files_of, first_files, is_folder, used_names
from .values import checked_numbers, class_name, clean_name, image_size, number
from .xml_files import parse_xml, root_tag

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NO_AREA = "box of no area"


class _Object(NamedTuple):
    box: VocObject | None
    shape: Shape


class _Parsed(NamedTuple):
    labels: LabelledImage
    candidates: tuple[str, ...]
    objects: tuple[_Object, ...]
    problems: list[Problem]


def detect(path: str, images: str) -> bool:
    """Whether a folder, or its folder Annotations, has VOC's XML."""
    if not is_folder(path):
        return False
    return any(root_tag(file) == "annotation" for file in first_files(_folder(path), ".xml"))


def _folder(path: str) -> str:
    inside = os.path.join(path, "Annotations")
    return inside if os.path.isdir(inside) and not first_files(path, ".xml", 1) else path


def read(path: str, images: str) -> Labelling:
    """What the folder's files say, as prepare_voc reads them.

    Boxes are pixels counted from 1 with both ends inclusive, unless one of the folder begins in
    [0, 1): then all are edges counted from 0. Polygons are in edges from 0. An object that is
    difficult is a crowd.

    Raises:
        InputError: there is no XML, none can be used, or all coordinates are shares of the image.
    """
    files = files_of(_folder(path), ".xml", "VOC has for each image")
    parsed, problems = parse_some(_parse, files)
    boxes = [o.box for each in parsed for o in each.objects if o.box is not None]
    if boxes and all(0 <= c <= 1 for box in boxes for c in box.corners):
        raise InputError(
            f"{path}: all coordinates of boxes are within 0 to 1, shares of the image: VOC's are "
            "pixels; multiply them by the image's width and height"
        )
    from_one = not any(box.begins_at_zero() for box in boxes)
    folder = ImageNames(images)
    found = []
    for each in parsed:
        faults = Faults(each.labels.source)
        shapes = tuple(_placed(each, from_one, faults))
        found.append(each.labels._replace(image=folder.pick(each.candidates), shapes=shapes))
        problems += each.problems + faults.problems()
    return Labelling(found, used_names(found), problems=problems)


def _placed(parsed: _Parsed, from_one: bool, faults: Faults) -> list[Shape]:
    width, height = (size or float("inf") for size in parsed.labels[1:3])
    shapes = []
    for box, shape in parsed.objects:
        if box is None:
            shapes.append(shape)
            continue
        xmin, ymin, xmax, ymax = box.corners
        x0, y0 = (xmin - 1, ymin - 1) if from_one else (xmin, ymin)
        inside = max(x0, 0.0), max(y0, 0.0), min(xmax, width), min(ymax, height)
        # xmin = xmax is one pixel by the letter of VOC, and a slip of the mouse in fact.
        if xmax <= xmin or ymax <= ymin or inside[0] >= inside[2] or inside[1] >= inside[3]:
            faults.add(
                _NO_AREA,
                f"the bndbox {box.corners} of {box.name!r} has no area inside the image: remove or "
                "correct it",
            )
            continue
        shapes.append(shape._replace(box=inside))
    return shapes


def _parse(file: str) -> _Parsed:
    root = parse_xml(file, MAX_BYTES[".xml"])
    if root.tag != "annotation":
        raise InputError(f"{file} is no XML of VOC: it begins with <{root.tag[:40]}>")
    faults = Faults(file)
    objects = []
    for index, element in enumerate(root.iter("object"), start=1):
        try:
            objects.append(_object(element, f"object {index}"))
        except InputError as e:
            faults.add(MALFORMED, e)
    size = image_size(_text(root, "size/width"), _text(root, "size/height"))
    stem = os.path.splitext(os.path.basename(file))[0]
    candidates = [stem]
    for key in ("filename", "path"):
        try:
            name = os.path.basename(clean_name(_text(root, key), key))
        except InputError:
            continue
        if not name:
            continue
        # Other than the XML's name, <filename> may be left from before images were renamed.
        place = 0 if os.path.splitext(name)[0] == stem else len(candidates)
        candidates.insert(place, name)
    names = tuple(dict.fromkeys(candidates))
    labels = LabelledImage(names[0], *(size or (None, None)), source=file)
    return _Parsed(labels, names, tuple(objects), faults.problems())


def _text(element: ET.Element, key: str) -> str:
    return (element.findtext(key) or "").strip()


def _object(element: ET.Element, where: str) -> _Object:
    name = class_name(_text(element, "name"), where)
    what = f"{where}, {name!r},"
    difficult = _text(element, "difficult") == "1"
    polygons = tuple(
        _polygon(each, what) for each in (*element.iterfind("polygon"), *element.iterfind("segm"))
    )
    bndbox = element.find("bndbox")
    box = None
    if bndbox is not None:
        x0, y0, x1, y1 = (number(_text(bndbox, k), f"<{k}> of {what}") for k in _CORNERS)
        box = VocObject(name, (x0, y0, x1, y1), difficult)
    elif not polygons:
        raise InputError(f"{what} has no <bndbox>: draw a box, or remove the object")
    return _Object(box, Shape(name, polygons=polygons, is_crowd=difficult))


def _polygon(element: ET.Element, what: str) -> tuple[float, ...]:
    """The points of a <polygon>: <x1>, <y1>, <x2>, ..., or <pt> or <point> with <x> and <y>."""
    points: list[float] = []
    for child in element:
        if child.tag in ("pt", "point"):
            points += (number(_text(child, k), f"<{k}> of a polygon of {what}") for k in "xy")
        elif child.tag[:1] in ("x", "y") and child.tag[1:].isdecimal():
            points.append(number((child.text or "").strip(), f"<{child.tag}> of {what}"))
    if len(points) < 6 or len(points) % 2:
        raise InputError(
            f"{what} has a <polygon> of {len(points) / 2:g} points; it takes 3 or more"
        )
    return checked_numbers(points, what)


FORMAT = DatasetFormat("voc", ("sem_seg", "instances"), detect, read)
