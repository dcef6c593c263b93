"""Checked access to the values of untrusted JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import shortened

Check = Callable[[Any], Any]  # a value to what is made of it; ValueError says what it is to be


class Fields:
    """The values of a JSON object by key."""

    def __init__(self, value: Any, name: str = ""):
        """
        Args:
            value: of the JSON.
            name: of the object, for messages; "" = the outermost one.

        Raises:
            ValueError: it is not an object.
        """
        if not isinstance(value, dict):
            raise ValueError(f"{name or 'it'} is {shortened(value, 60)}; an object is expected")
        self._left = dict(value)
        self._name = name

    def name(self, key: str) -> str:
        """Of a key, with those of the objects around it."""
        return f"{self._name}.{key}" if self._name else key

    def take(self, key: str, check: Check) -> Any:
        """What `check` makes of a value; ValueError names the key where it is missing or wrong."""
        if key not in self._left:
            raise ValueError(f"{self.name(key)} is missing")
        value = self._left.pop(key)
        try:
            return check(value)
        except ValueError as e:
            raise ValueError(f"{self.name(key)} is {shortened(value, 60)}; {e}") from e

    def has(self, key: str) -> bool:
        """Whether there is such a key, and not null."""
        return self._left.get(key) is not None

    def keys(self) -> list[str]:
        """Those that nobody took."""
        return list(self._left)

    def object(self, key: str) -> Fields:
        """An object within this one."""
        return Fields(self.take(key, lambda value: value), self.name(key))

    def end(self) -> None:
        """ValueError where there are keys that nobody took."""
        if self._left:
            raise ValueError(f"{self.name(min(self._left))[:100]!r} is not a known key")


def text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 10_000:
        raise ValueError("a text of up to 10,000 characters is expected")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is expected")
    return value


def integer(low: int, high: int) -> Check:
    """Of both ends, inclusive."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"an integer from {low} to {high} is expected")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Of both ends, inclusive."""

    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or not math.isfinite(value):
            raise ValueError(f"a number from {low:g} to {high:g} is expected")
        return value

    return check


def one_of(*known: Any) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, type(known[0])) or value not in known:
            raise ValueError(f"one of {list(known)} is expected")
        return value

    return check


def optional(check: Check) -> Check:
    """None is null."""
    return lambda value: None if value is None else check(value)


def tuple_of(
    check: Check, length: int | None = None, most: int = 1 << 16, one_for: str = ""
) -> Check:
    """A list of so many, or of up to `most`, as a tuple; `one_for` says why there are so many."""

    def check_all(values: Any) -> tuple:
        if not isinstance(values, list) or len(values) > most:
            raise ValueError(f"a list of up to {most} values is expected")
        if length is not None and len(values) != length:
            reason = f", one for each of {one_for}" if one_for else ""
            raise ValueError(f"a list of {length} values is expected{reason}")
        checked = []
        for i, value in enumerate(values):
            try:
                checked.append(check(value))
            except ValueError as e:
                raise ValueError(f"its value {i} is {shortened(value, 60)}: {e}") from e
        return tuple(checked)

    return check_all


def distinct(values: Sequence) -> Sequence:
    """ValueError where two are equal."""
    if len(set(values)) != len(values):
        raise ValueError("no value may occur twice")
    return values
