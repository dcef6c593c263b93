"""Class lists in text files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..files import read_text
from .categories import Categories
from .coco_json import check_class_name

_LARGEST_FILE = 2**20  # bytes
_LONGEST_LINE = 1000
_LINE_ENDS = re.compile(r"\r\n|\n|\r")  # and not the rarer ones of str.splitlines
# CVAT's and Datumaro's labelmap.txt: "# label:color_rgb:parts:actions", then "cat:250,50,83::".
_LABELMAP = re.compile(r"([^:]+):(?:(\d+),(\d+),(\d+))?:([^:]*):([^:]*)")


def read_classes(path: str, ignore_label: int = 255) -> Categories:
    """The classes of a text file: one name a line, the first is label 0.

    A line may end in a colour, three numbers from 0 to 255 (red, green, blue); then all do. A
    labelmap.txt of CVAT (name:r,g,b:parts:actions on each line, after lines that begin with "#") is
    read as well.

    Args:
        path: of the file.
        ignore_label: of the pixels without a class.

    Raises:
        InputError: the file is not UTF-8 text, has an empty line within, a name twice, a name of no
            or of too many characters or with control characters, a line that begins with "#", or
            colours on some lines only.
    """
    text = read_text(path, most=_LARGEST_FILE).rstrip()
    lines = _LINE_ENDS.split(text) if text else []
    for number, line in enumerate(lines, start=1):
        if len(line) > _LONGEST_LINE:
            raise InputError(
                f"{path}, line {number}: {len(line)} characters; it takes one class a line"
            )
    labelmap = _labelmap_lines(lines)
    names: list[str] = []
    colors: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if labelmap is not None and number not in labelmap:
            continue
        where = f"{path}, line {number}"
        name, color = labelmap[number] if labelmap is not None else _plain(line, where)
        if not name or name in names:
            problem = f"{name!r} stands there twice" if name else "the line has no name"
            raise InputError(f"{where}: {problem}; it takes one class a line")
        check_class_name(name, where)
        if max(color, default=0) > 255:
            raise InputError(f"{where}: the colour {color} has a number above 255")
        names.append(name)
        colors += [color] if color else []
    if not names:
        raise InputError(f"{path} is empty; it takes one class a line")
    if colors and len(colors) < len(names):
        raise InputError(
            f"{path}: {len(colors)} of {len(names)} classes have a colour; it takes all or none"
        )
    return Categories(tuple(names), tuple(colors), tuple(range(len(names))), ignore_label)


def listed_classes(classes: str | Sequence[str], ignore_label: int = 255) -> Categories:
    """The classes of a text file (read_classes) or of a list of their names."""
    if isinstance(classes, str):
        return read_classes(classes, ignore_label)
    return Categories(tuple(classes), (), tuple(range(len(classes))), ignore_label)


def _plain(line: str, where: str) -> tuple[str, tuple[int, ...]]:
    """The name and the colour, or (), of a line."""
    if line.lstrip().startswith("#"):
        raise InputError(
            f"{where} begins with '#', but a list of classes has no comments: each line is a "
            "class, and the first is label 0. Remove the line"
        )
    name, *numbers = re.fullmatch(
        r"(.*?)(?:\s+(\d+)\s+(\d+)\s+(\d+))?", line.strip(), re.DOTALL
    ).groups()
    return name, tuple(int(n) for n in numbers if n is not None)


def _labelmap_lines(lines: list[str]) -> dict[int, tuple[str, tuple[int, ...]]] | None:
    """{number of a line: its name and colour} of a labelmap.txt; None where it is not one."""
    found = {}
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        match = _LABELMAP.fullmatch(line.strip())
        if match is None:
            return None
        name, *numbers = match.groups()[:4]
        found[number] = name.strip(), tuple(int(n) for n in numbers if n is not None)
    return found or None
