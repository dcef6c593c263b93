"""Tables of class names and colours that annotation tools write beside label images."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from ...errors import InputError, cut, shortened
from ...files import read_json, read_text
from ..class_list import read_classes
from ..coco_json import check_class_name
from .contract import BACKGROUND, paths_above
from .raster_pixels import LARGEST_VALUE

Color = tuple[int, int, int]

_LARGEST_FILE = 2**20  # bytes
_NAME_COLUMNS = ("name", "class", "class_name", "label")
_COLOR_COLUMNS = (("r", "g", "b"), ("red", "green", "blue"))
# CamVid's and Datumaro's label_colors.txt: "64 128 64<tab>Animal".
_COLOR_LINE = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*)")
_ROBOFLOW_HEADER = ["pixel value", "class"]


class ColorTable(NamedTuple):
    """The classes of a file.

    Attributes:
        file: that they are from.
        names: in its order; a class of several colours is there several times.
        colors: one for each name; Pascal VOC's, in their order, where the file has none.
    """

    file: str
    names: tuple[str, ...]
    colors: tuple[Color, ...]

    def by_color(self) -> dict[Color, str]:
        """{colour: name}.

        Raises:
            InputError: two classes have one colour.
        """
        found: dict[Color, str] = {}
        for name, color in zip(self.names, self.colors, strict=True):
            if found.setdefault(color, name) != name:
                raise InputError(
                    f"{self.file}: {found[color]!r} and {name!r} have the same colour {color}"
                )
        return found

    def first_colors(self) -> dict[str, Color]:
        """{name: its first colour}."""
        found: dict[str, Color] = {}
        for name, color in zip(self.names, self.colors, strict=True):
            found.setdefault(name, color)
        return found

    def distinct_names(self) -> list[str]:
        """Each name once, in the order of the file."""
        return list(dict.fromkeys(self.names))


def find_table(folder: str, only: str = "") -> ColorTable | None:
    """The table in a folder, else in the one above, else in the next above; None where is none.

    Args:
        folder: of label images.
        only: the name of the file; "" = any of a table.

    Raises:
        InputError: it cannot be used.
    """
    place = os.path.abspath(folder)
    for _ in range(3):
        for name, read in _READERS.items():
            if only in ("", name) and os.path.isfile(path := os.path.join(place, name)):
                return read(path)
        place = os.path.dirname(place)
    return None


def tables_above(labels: str, images: str) -> list[str]:
    """As DatasetFormat.beyond says; class_names.txt is labelme's."""
    return paths_above(labels, (*_READERS, "class_names.txt"))


def _read_labelmap(path: str) -> ColorTable:
    classes = read_classes(path)
    return ColorTable(path, classes.names, classes.colors or _voc_colors(len(classes.names)))


def _read_label_colors(path: str) -> ColorTable:
    """CamVid's, or CVAT's and Datumaro's, who do not list the background, which is black."""
    names: list[str] = []
    colors: list[Color] = []
    for number, line in enumerate(read_text(path, most=_LARGEST_FILE).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _COLOR_LINE.fullmatch(line.strip())
        where = f"{path}, line {number}"
        names.append(_name(match[4].strip() if match else line.strip(), where))
        if match:
            colors.append(_color([match[1], match[2], match[3]], where))
    if colors and len(colors) < len(names):
        raise InputError(
            f"{path}: {len(colors)} of {len(names)} classes have a colour; it takes all or none, "
            "as red, green, blue and the name"
        )
    return _table(path, *_with_background(names, colors))


def _with_background(names: list[str], colors: list[Color]) -> tuple[list[str], list[Color]]:
    if BACKGROUND not in names and (0, 0, 0) not in colors:
        return [BACKGROUND, *names], [(0, 0, 0), *colors] if colors else []
    return names, colors


def _voc_colors(count: int) -> tuple[Color, ...]:
    """Pascal VOC's colours, with which Datumaro paints classes that have none, in their order.

    Each three bits of an index, from the lowest, are the next lower bit of red, green and blue:
    host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html.
    """
    colors = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(24):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)


def _read_class_dict(path: str) -> ColorTable:
    rows = _read_csv(path)
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    name_at = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    color_at = next(
        ([header.index(c) for c in those] for those in _COLOR_COLUMNS if {*those} <= {*header}),
        None,
    )
    if name_at is None or color_at is None:
        raise InputError(f"{path}: its first line is {header}; it takes name,r,g,b")
    names, colors = [], []
    for number, row in rows[1:]:
        where = f"{path}, line {number}"
        if len(row) < len(header):
            raise InputError(f"{where} has {len(row)} values; the first line has {len(header)}")
        names.append(_name(row[name_at], where))
        colors.append(_color([row[i] for i in color_at], where))
    return _table(path, names, colors)


def _read_machine_colors(path: str) -> ColorTable:
    """Supervisely's {"kiwi": [1, 1, 1]}, in which the background, (0, 0, 0), is not listed."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f'{path}: it takes {{"name": [red, green, blue]}}')
    names, colors = [], []
    for name, numbers in content.items():
        where = f"{path}, {cut(name, 80)!r}"
        if not isinstance(numbers, list) or len(numbers) != 3:
            raise InputError(f"{where}: it takes three numbers from 0 to 255")
        names.append(_name(name, where))
        colors.append(_color([shortened(n) for n in numbers], where))
    return _table(path, *_with_background(names, colors))


# By the names of the files.
_READERS: dict[str, Callable[[str], ColorTable]] = {
    "labelmap.txt": _read_labelmap,
    "class_dict.csv": _read_class_dict,
    "class_dict_seg.csv": _read_class_dict,
    "label_colors.txt": _read_label_colors,
    "obj_class_to_machine_color.json": _read_machine_colors,
}


def read_value_names(folder: str) -> dict[int, str]:
    """{value: name} of Roboflow's _classes.csv in a folder of label images; {} where is none.

    Raises:
        InputError: it cannot be used.
    """
    path = os.path.join(folder, "_classes.csv")
    rows = _read_csv(path) if os.path.isfile(path) else []
    # Of images with a class each, it has other columns.
    if not rows or [cell.lower() for cell in rows[0][1]] != _ROBOFLOW_HEADER:
        return {}
    found: dict[int, str] = {}
    for number, row in rows[1:]:
        where = f"{path}, line {number}"
        if len(row) != 2 or not _is_value(row[0]):
            raise InputError(f"{where}: {', '.join(row)[:80]!r}; it takes a value and a name")
        value = int(row[0])
        if value in found:
            raise InputError(f"{where}: the value {value} stands there twice")
        found[value] = _name(row[1], where)
    return found


def _read_csv(path: str) -> list[tuple[int, list[str]]]:
    """(number of the line, its values without spaces around them) of the lines that are not empty.

    Raises:
        InputError: it is not a table of text.
    """
    lines = csv.reader(read_text(path, most=_LARGEST_FILE).splitlines(), skipinitialspace=True)
    try:
        return [
            (lines.line_num, [cell.strip() for cell in row])
            for row in lines
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as e:
        raise InputError(f"{path}, line {lines.line_num}: {e}") from e


def _is_value(text: str) -> bool:
    return text.isdecimal() and len(text) <= 8 and int(text) <= LARGEST_VALUE


def _name(name: str, where: str) -> str:
    if not name:
        raise InputError(f"{where}: the line has no name")
    check_class_name(name, where)
    return name


def _color(numbers: list[str], where: str) -> Color:
    if not all(n.isdecimal() and len(n) <= 3 and int(n) <= 255 for n in numbers):
        raise InputError(f"{where}: the colour {numbers} is not three numbers from 0 to 255")
    red, green, blue = map(int, numbers)
    return red, green, blue


def _table(path: str, names: list[str], colors: list[Color]) -> ColorTable:
    if not names:
        raise InputError(f"{path} names no class")
    return ColorTable(path, tuple(names), tuple(colors) or _voc_colors(len(names)))
