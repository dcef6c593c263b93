"""What an inspection finds in datasets, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from tabulate import tabulate

from ...errors import InputError
from ..severity import SEVERITY, is_error

_EXAMPLES = 3  # of each kind, in the table; the JSON has all


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: a key of SEVERITY.
        file: the file to fix; empty where it is the dataset as a whole.
        message: what is wrong, with the file's name.
    """

    kind: str
    file: str
    message: str

    @property
    def is_error(self) -> bool:
        return is_error(self.kind)

    def as_dict(self) -> dict:
        return {
            "severity": SEVERITY[self.kind],
            "kind": self.kind,
            "file": self.file,
            "message": self.message,
        }


@dataclass
class Tally:
    """Counts over some records of a dataset.

    Attributes:
        images: number of records.
        findings: in the order of the records; at most one of a kind for each file.
        pixels: (256,) pixels of each label.
        objects: objects of each class that training uses.
    """

    images: int = 0
    findings: list[Finding] = field(default_factory=list)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    objects: Counter[int] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.images += other.images
        self.findings += other.findings
        self.pixels += other.pixels
        self.objects += other.objects

    def note(self, kind: str, file: str, message: str) -> None:
        self.findings.append(Finding(kind, file, message))

    @contextmanager
    def noting(self, kind: str, file: str) -> Iterator[None]:
        """Turn an InputError into a finding."""
        try:
            yield
        except InputError as e:
            self.note(kind, file, str(e))


def merge_tallies(tallies: Iterable[Tally]) -> Tally:
    """The sum of several tallies."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


@dataclass
class DatasetReport:
    """What was found in one dataset.

    Attributes:
        name: as registered.
        tally: of all its records.
        label_names, object_names: of the classes; empty where it has no pixel labels, or no boxes.
        ignore_value: label of the pixels that are ignored.
    """

    name: str
    tally: Tally = field(default_factory=Tally)
    label_names: tuple[str, ...] = ()
    object_names: tuple[str, ...] = ()
    ignore_value: int = 255

    @property
    def pixels(self) -> list[tuple[str, int]]:
        """(class, labelled pixels), in the order of the classes."""
        return [(name, self._pixels_of(i)) for i, name in enumerate(self.label_names)]

    def _pixels_of(self, label: int) -> int:
        return int(self.tally.pixels[label]) if 0 <= label < 256 else 0  # what 8 bits can hold

    @property
    def objects(self) -> list[tuple[str, int]]:
        """(class, objects), in the order of the classes."""
        return [(name, self.tally.objects[i]) for i, name in enumerate(self.object_names)]

    def note_unseen(self) -> None:
        """Add a finding for each class without a pixel or object."""
        for what, histogram in (("pixel", self.pixels), ("object", self.objects)):
            for name, count in histogram:
                if not count:
                    self.tally.note("class never seen", "", f"{self.name} has no {what} of {name}")

    def as_dict(self) -> dict:
        return {
            "images": self.tally.images,
            "findings": [finding.as_dict() for finding in self.tally.findings],
            "pixels": [{"class": name, "count": count} for name, count in self.pixels],
            "ignored_pixels": self._pixels_of(self.ignore_value) if self.label_names else 0,
            "objects": [{"class": name, "count": count} for name, count in self.objects],
        }

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.tally.images} images, {_counts(self.tally.findings)}"]
        if self.tally.findings:
            parts.append(_findings_table(self.tally.findings))
        if self.label_names:
            total = max(1, self.tally.pixels.sum())
            ignored = ("(ignored)", self._pixels_of(self.ignore_value))
            rows = [(n, c, f"{c / total:.2%}") for n, c in [*self.pixels, ignored]]
            parts.append(_columns(rows, ["class", "pixels", "share"]))
        if self.object_names:
            parts.append(_columns(self.objects, ["class", "objects"]))
        return "\n\n".join(parts)


@dataclass
class Report:
    """What was found in several datasets.

    Attributes:
        datasets: one report each.
        findings: those of the config.
    """

    datasets: list[DatasetReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def all_findings(self) -> list[Finding]:
        return self.findings + [f for d in self.datasets for f in d.tally.findings]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.all_findings if finding.is_error]

    def as_dict(self) -> dict:
        """What the JSON report holds."""
        return {
            "errors": len(self.errors),
            "warnings": len(self.all_findings) - len(self.errors),
            "config": [finding.as_dict() for finding in self.findings],
            "datasets": {dataset.name: dataset.as_dict() for dataset in self.datasets},
        }

    def __str__(self) -> str:
        parts = [_findings_table(self.findings)] if self.findings else []
        parts += [str(dataset) for dataset in self.datasets]
        return "\n\n".join([*parts, f"in all: {_counts(self.all_findings)}"])


def _counts(findings: list[Finding]) -> str:
    errors = sum(finding.is_error for finding in findings)
    warnings = len(findings) - errors
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def _findings_table(findings: list[Finding]) -> str:
    """How many there are of each kind, errors first, and examples below."""
    counts = Counter(finding.kind for finding in findings)
    kinds = [kind for kind in SEVERITY if counts[kind]]
    rows = [(SEVERITY[kind], kind, counts[kind]) for kind in kinds]
    lines = [tabulate(rows, headers=["severity", "finding", "count"])]
    for kind in kinds:
        found = [finding.message for finding in findings if finding.kind == kind]
        lines += ["", *(f"{SEVERITY[kind]}: {message}" for message in found[:_EXAMPLES])]
        if len(found) > _EXAMPLES:
            lines.append(f"  and {len(found) - _EXAMPLES} more")
    return "\n".join(lines)


def _columns(rows: list[tuple], headers: list[str], height: int = 20) -> str:
    """A table in up to three columns side by side, so that it has about `height` lines."""
    columns = min(3, -(-len(rows) // height))
    height = -(-len(rows) // columns)
    parts = [rows[i * height : (i + 1) * height] for i in range(columns)]
    blank = (None,) * len(headers)
    merged = [sum(line, ()) for line in zip_longest(*parts, fillvalue=blank)]
    return tabulate(merged, headers=headers * columns)
