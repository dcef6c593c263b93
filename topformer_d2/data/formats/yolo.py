"""YOLO's text files, one an image: boxes and polygons in shares of the image.

Sources: https://docs.ultralytics.com/datasets/detect and .../segment; Darknet's README.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from typing import NamedTuple

from ...errors import InputError, shortened
from ...files import read_text
from .contract import DatasetFormat, LabelledImage, Labelling, Problem, Shape
from .parallel import parse_files
from .shape_files import (
    MALFORMED,
    NOT_USED,
    Faults,
    ImageNames,
    files_of,
    first_files,
    head_of,
    is_folder,
)
from .values import number
from .yolo_files import NOT_LABELS, files_beyond, find_layout, is_data_yaml

# Rounding leads a little out of the image; more is another unit.
_TOLERANCE = 0.01
_LARGEST_CLASS = 1_000_000
_MOST_BYTES = 64 << 20


def detect(path: str, images: str) -> bool:
    """Whether it is a data.yaml, or a folder whose texts are lines of numbers."""
    if not is_folder(path):
        return is_data_yaml(path)
    try:
        layout = find_layout(path, images)
    except InputError:
        return False
    files = [
        file
        for file in first_files(layout.folder, ".txt", 9)
        if os.path.basename(file) not in NOT_LABELS
    ]
    heads = [head_of(file, 4096).decode("utf-8-sig", "replace") for file in files]
    lines = [head.splitlines()[0] for head in heads if head.strip()]
    if not lines:
        return layout.names is not None
    return all(map(_is_line, lines))


def _is_line(line: str) -> bool:
    # The end of a long polygon may be beyond the head.
    values = line.split()[:5]
    try:
        return len(values) == 5 and bool([float(v) for v in values]) and float(values[0]) >= 0
    except ValueError:
        return False


class _Parsed(NamedTuple):
    shapes: tuple[tuple[int, Shape], ...]
    problems: list[Problem]


def read(path: str, images: str) -> Labelling:
    """What the files say; an image without a file, or with an empty one, has no objects.

    Raises:
        InputError: there are no labels, or the file of the names is wrong.
    """
    layout = find_layout(path, images)
    folder = ImageNames(images)
    stems: dict[str, list[str]] = {}
    for name in sorted(folder.names):
        stems.setdefault(os.path.splitext(name)[0], []).append(name)
    files = [
        file
        for file in files_of(layout.folder, ".txt", "YOLO has for each image")
        if os.path.basename(file) not in NOT_LABELS or _stem(file) in stems
    ]
    parse = partial(_parse, names=layout.names, key_points=layout.key_points)
    parsed, refused = parse_files(parse, files)
    problems = refused + [problem for each in parsed for problem in each.problems]
    names = layout.names
    if names is None:
        used = {index for each in parsed for index, _ in each.shapes}
        names = {index: str(index) for index in sorted(used)}
    found = []
    bad = {problem.file for problem in refused}
    for file, each in zip([f for f in files if f not in bad], parsed, strict=True):
        shapes = tuple(shape._replace(label=names[index]) for index, shape in each.shapes)
        for image in stems.pop(_stem(file), [_stem(file)]):
            found.append(LabelledImage(image, shapes=shapes, is_relative=True, source=file))
    for file in bad:
        stems.pop(_stem(file), None)
    for without in stems.values():
        found += [LabelledImage(name, is_relative=True, source=layout.folder) for name in without]
    if not found:
        raise InputError(f"{layout.folder}: none of its files can be used: {problems[0].message}")
    ordered = dict.fromkeys(names[index] for index in sorted(names))
    ids = {str(index): name for index, name in names.items()}
    return Labelling(found, list(ordered), problems=problems, ids=ids)


def _stem(file: str) -> str:
    return os.path.splitext(os.path.basename(file))[0]


def _parse(file: str, names: dict[int, str] | None, key_points: tuple[int, int] | None) -> _Parsed:
    faults = Faults(file)
    shapes = []
    unused: Counter = Counter()
    for place, line in enumerate(read_text(file, most=_MOST_BYTES).splitlines(), start=1):
        if not (words := line.split()):
            continue
        where = f"line {place}"
        try:
            index = _class(words[0], names, where)
            values = _values(words[1:], where)
            if key_points and len(values) == 4 + key_points[0] * key_points[1]:
                unused["key points"] += 1
                values = values[:4]
            _check_shares(values[:4] if len(values) == 5 else values, where)
            shapes.append((index, _shape(values, where)))
        except InputError as e:
            faults.add(MALFORMED, e)
    for kind, count in unused.items():
        faults.add(NOT_USED, f"{kind} of {count} objects are left out; their boxes are used")
    return _Parsed(tuple(shapes), faults.problems())


def _class(word: str, names: dict[int, str] | None, where: str) -> int:
    index = number(word, f"the class of {where}", _LARGEST_CLASS)
    if index != int(index) or index < 0:
        raise InputError(f"the class of {where} is {shortened(word, 40)}; it takes 0, 1, 2, ...")
    if names is not None and index not in names:
        raise InputError(
            f"{where} has the class {int(index)}, and the names are {min(names)} to {max(names)}: "
            "add its name, or correct the number"
        )
    return int(index)


def _values(words: list[str], where: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        return [number(word, f"a number of {where}") for word in words]
    if not all(-(2**24) <= value <= 2**24 for value in values):  # not so with a NaN
        return [number(value, f"a number of {where}") for value in values]
    return values


def _check_shares(values: list[float], where: str) -> None:
    if values and not (min(values) >= -_TOLERANCE and max(values) <= 1 + _TOLERANCE):
        largest = max(values, key=abs)
        unit = (
            "percent: divide by 100"
            if 1 < largest <= 100
            else ("pixels: divide x by the image's width and y by its height")
        )
        raise InputError(
            f"{where} has {largest:g}; YOLO's numbers are shares of the image, 0 to 1. If these "
            f"are {unit}"
        )


def _shape(values: list[float], where: str) -> Shape:
    count = len(values)
    if count == 4:
        x, y, w, h = values
        if w < 0 or h < 0:
            raise InputError(f"{where} has a negative width or height")
        return Shape("", (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    if count >= 6 and count % 2 == 0:
        return Shape("", polygons=(tuple(min(max(value, 0.0), 1.0) for value in values),))
    confidence = (
        "; predictions have the confidence as a last number, and are not read as labels: remove it"
        if count >= 5
        else ""
    )
    raise InputError(
        f"{where} has {count} numbers after the class; a box has 4 and a polygon an even number "
        f"from 6 on{confidence}"
    )


FORMAT = DatasetFormat("yolo", ("sem_seg", "instances"), detect, read, beyond=files_beyond)
