"""What the value of a config key can be: a number within a range, a choice, text or a list."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

_INFINITY = math.inf


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`; the ends belong to it unless `above` or `below`."""

    low: float
    high: float = _INFINITY
    above: bool = False
    below: bool = False
    whole: bool = False
    or_none: bool = False

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.or_none
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        if not self.low <= value <= self.high or value == _INFINITY:  # NaN is in no range
            return False
        return not ((self.above and value == self.low) or (self.below and value == self.high))

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high == _INFINITY and not self.whole:
            kind = "a finite number"
        if self.low == -_INFINITY:
            return kind
        low = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        if self.high == _INFINITY:
            return f"{kind}, {low}"
        if not self.above and not self.below:
            return f"{kind} from {self.low:g} to {self.high:.10g}"
        return f"{kind}, {low} and {'below' if self.below else 'at most'} {self.high:.10g}"


@dataclass(frozen=True)
class Choice:
    names: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        return any(type(value) is type(name) and value == name for name in self.names)

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.names))}"


@dataclass(frozen=True)
class Text:
    empty: bool = True

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and (self.empty or bool(value)) and "\0" not in value

    def __str__(self) -> str:
        return "text" if self.empty else "text that is not empty"


# Units of a Duration in seconds, in their order.
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?){u})?" for u in _UNITS))


def seconds_of(text: Any) -> float:
    """The seconds of a time such as "90m" or "1h30m"; 0 where it is not such a text."""
    parts = _DURATION.fullmatch(text) if isinstance(text, str) else None
    numbers = parts.groups(default="0") if parts else ()
    return sum(float(n) * seconds for n, seconds in zip(numbers, _UNITS.values(), strict=False))


@dataclass(frozen=True)
class Duration:
    """A time above 0 as seconds_of takes it, or with `or_none` None."""

    or_none: bool = True

    def accepts(self, value: Any) -> bool:
        return (self.or_none and value is None) or seconds_of(value) > 0

    def __str__(self) -> str:
        ending = ", or None" if self.or_none else ""
        return f"a time in d, h, m and s, such as '90m' or '1h30m'{ending}"


@dataclass(frozen=True)
class ListOf:
    """`lengths`: those allowed; empty = any, from `least` up."""

    item: Number | Choice | Text | ListOf
    lengths: tuple[int, ...] = ()
    least: int = 0

    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and (not self.lengths or len(value) in self.lengths)
            and len(value) >= self.least
            and all(map(self.item.accepts, value))
        )

    def __str__(self) -> str:
        count = " or ".join(map(str, self.lengths)) or (
            f"{self.least} or more" if self.least else "any number"
        )
        return f"a list of {count}, each {self.item}"


@dataclass(frozen=True)
class Only:
    """Of a key of Detectron2's that is not honoured here: its default `value`, and `why`."""

    value: Any
    why: str

    def accepts(self, value: Any) -> bool:
        return value == self.value

    def __str__(self) -> str:
        return f"{self.value!r} alone: {self.why}"


Rule = Number | Choice | Text | Duration | ListOf | Only
