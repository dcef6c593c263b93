"""Places of a dataset whose labels a model doubts, as a JSON list."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, shortened
from ..files import read_json, write_json

# What a suspected label error may be, and its words.
KINDS = {
    "region": "a region of pixels of another class",
    "class": "an object of another class",
    "missing": "an object without a box",
    "place": "a box that does not fit its object",
}


@dataclass(frozen=True)
class Suspect:
    """A place where a model is sure of something that the labels do not say.

    Attributes:
        file_name: of the image, as its record has it.
        kind: one of KINDS.
        box: x0, y0, x1, y1 in pixels: of the region, or what the model has found.
        labelled: name of the class there by the labels; None where they have nothing.
        predicted: name of the class there by the model.
        confidence: 0..1; of a region the mean over its pixels, of a box its score.
    """

    file_name: str
    kind: str
    box: tuple[float, float, float, float]
    labelled: str | None
    predicted: str
    confidence: float

    @property
    def text(self) -> str:
        """What is suspected, in a few words."""
        where = self.labelled or "nothing"
        words = f"labelled {where}, predicted {self.predicted} ({self.confidence:.0%})"
        return f"{KINDS[self.kind]}: {words}"


def write_suspects(path: str | os.PathLike, suspects: Sequence[Suspect]) -> None:
    """Write them as a JSON list of objects with Suspect's attributes."""
    write_json(path, [dataclasses.asdict(suspect) for suspect in suspects], indent=1)


def read_suspects(path: str) -> list[Suspect]:
    """What write_suspects wrote.

    Raises:
        InputError: the file cannot be read, or is something else.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path} is no list of suspected label errors, but {shortened(content)}")
    return [_suspect(entry, f"{path}: entry {n}") for n, entry in enumerate(content, start=1)]


def _suspect(entry: Any, place: str) -> Suspect:
    names = [field.name for field in dataclasses.fields(Suspect)]
    if not isinstance(entry, dict) or set(entry) != set(names):
        raise InputError(f"{place} is {shortened(entry)}; it takes {', '.join(names)}")
    box, kind, confidence = entry["box"], entry["kind"], entry["confidence"]
    texts = [entry["file_name"], entry["predicted"]]
    texts += [] if entry["labelled"] is None else [entry["labelled"]]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{place}: file_name, labelled and predicted are texts")
    if kind not in KINDS:
        raise InputError(f"{place}: kind is {shortened(kind)}; known: {', '.join(KINDS)}")
    numbers = [*box, confidence] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(_is_number(value) for value in numbers):
        raise InputError(f"{place}: box takes four numbers, and confidence one")
    return Suspect(**{**entry, "box": tuple(box)})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1 << 31 and math.isfinite(value)
