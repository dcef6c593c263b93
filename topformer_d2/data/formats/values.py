"""Checking values of labels that anybody may have written."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import InputError, cut, shortened
from ..coco_json import LARGEST_COORDINATE, check_class_name


def class_name(value: object, where: str) -> str:
    """A class's name as labels have it, without spaces around it.

    Raises:
        InputError: it is not text, is empty or very long, or has control characters.
    """
    if type(value) is int:
        value = str(value)[:300]
    if not isinstance(value, str):
        raise InputError(f"{where}: the label {shortened(value)} is not text: name the class")
    check_class_name(name := value.strip(), where)
    return name


def number(value: Any, what: str, most: float = LARGEST_COORDINATE) -> float:
    """A finite number between -most and most, also of text.

    Args:
        value: as the file has it.
        what: it is, for the message.
        most: the largest absolute value.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) not in (int, float) or not -most <= value <= most:
        raise InputError(
            f"{what} is {cut(shortened(value), 80)}; it takes a number from {-most} to {most}"
        )
    return float(value)


def whole(value: object, what: str, most: int = LARGEST_COORDINATE) -> int:
    """An integer between -most and most, also of text or as a float; InputError otherwise."""
    found = number(value, what, most)
    if found != int(found):
        raise InputError(f"{what} is {found}; it takes an integer")
    return int(found)


def flat_points(value: object, what: str, least: int = 3) -> tuple[float, ...]:
    """(x0, y0, x1, y1, ...) of a list of [x, y].

    Raises:
        InputError: it is another value, has fewer than `least` points, or a coordinate is no
            finite number that a pixel's may be.
    """
    if not isinstance(value, list) or not all(
        isinstance(point, (list, tuple)) and len(point) == 2 for point in value
    ):
        raise InputError(f"{what} has the points {shortened(value, 80)}; it takes a list of [x, y]")
    if len(value) < least:
        raise InputError(f"{what} has {len(value)} points; it takes at least {least}")
    return checked_numbers([each for point in value for each in point], what)


def checked_numbers(values: Sequence[Any], what: str) -> tuple[float, ...]:
    """Coordinates as a tuple; InputError where one is not a finite number that a pixel's may be."""
    # A check of each would take most of the time of reading a large file.
    if not {*map(type, values)} <= {int, float}:
        return tuple(number(each, f"a coordinate of {what}") for each in values)
    if values and not (
        min(values) >= -LARGEST_COORDINATE
        and max(values) <= LARGEST_COORDINATE
        # A NaN that is not the first passes both.
        and math.isfinite(sum(values))
    ):
        for each in values:
            number(each, f"a coordinate of {what}")
    return tuple(values)


def image_size(width: object, height: object) -> tuple[int, int] | None:
    """(width, height) of an image as labels have them; None where they are missing or wrong."""
    try:
        size = whole(width, "width"), whole(height, "height")
    except InputError:
        return None
    return size if min(size) > 0 else None


def clean_name(value: object, what: str) -> str:
    """The name or path of an image as labels have it, with "/" between folders.

    Raises:
        InputError: it is no text or names no file.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > 4096:
        raise InputError(f"{what} is {shortened(value, 80)}, which names no file")
    return value.replace("\\", "/").strip()


def entries_of(value: object, what: str) -> Iterator[tuple[int, Any]]:
    """enumerate() of a list; InputError where it is another value."""
    if not isinstance(value, list):
        raise InputError(f"{what} is {shortened(value, 60)}; it takes a list")
    return iter(enumerate(value))


def hex_color(value: object) -> tuple[int, int, int] | None:
    """(red, green, blue) of "#rrggbb", with or without an opacity, or of a list; None = neither."""
    if isinstance(value, str) and len(value.strip()) in (7, 9) and value.strip()[0] == "#":
        try:
            red, green, blue = bytes.fromhex(value.strip()[1:7])
        except ValueError:
            return None
        return red, green, blue
    if not isinstance(value, (list, tuple)) or len(value) not in (3, 4):
        return None
    if not all(type(each) is int and 0 <= each <= 255 for each in value[:3]):
        return None
    return value[0], value[1], value[2]
