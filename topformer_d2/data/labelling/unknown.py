"""Labels that are of no class: what is said of them, and the key to add."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import InputError, did_you_mean, shortened
from ..formats.contract import DatasetFormat, Labelling, Problem
from ..formats.raster_pixels import unpack
from ..registered import spread_evenly
from .classes import ClassMap
from .entry import IGNORE

# Of each kind, those that a message names.
_MOST = 8
_SAMPLES = 32  # of the files, whose values are looked at


def describe_unknown(
    unknown: Mapping[str, Mapping[str, int]],
    classes: ClassMap,
    kind: DatasetFormat,
    where: str,
) -> list[Problem]:
    """A problem for each label without a class; its message counts the files and has the fix.

    Args:
        unknown: of each file, {label: its pixels or objects}.
        classes: those that there are.
        kind: the labels' format.
        where: of the entry, for messages.
    """
    files: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for file, labels in unknown.items():
        for label, count in labels.items():
            files[label].append(file)
            counts[label] += count
    if not files:
        return []
    what = "colour" if kind.has_colors else "value" if kind.decode else "label"
    things = "pixels" if kind.decode else "objects"
    fix = suggest([*files], classes.names, where, has_colors=kind.has_colors)
    problems = []
    for label in sorted(files, key=_in_order)[:_MOST]:
        hint = "" if kind.decode else did_you_mean(label, list(classes.names))
        message = (
            f"{files[label][0]}: the {what} {label!r} is of no class{hint}; {counts[label]} "
            f"{things} in {len(files[label])} files have it. {fix}"
        )
        name = "unknown colour" if kind.has_colors else "unknown label"
        problems.append(Problem(name, files[label][0], message))
    return problems


def suggest_classes(labelling: Labelling, kind: DatasetFormat, where: str) -> str:
    """The keys to add where values of pixels have no names, by those of some files."""
    assert kind.decode is not None
    counts: Counter[str] = Counter()
    files = spread_evenly(labelling.images, _SAMPLES)
    for image in files:
        try:
            found, pixels = np.unique(kind.decode(image.files, labelling.names), return_counts=True)
        except InputError:  # is told when all are read
            continue
        for value, count in zip(found.tolist(), pixels.tolist(), strict=True):
            counts[shown_value(value, kind)] += count
    total = max(1, sum(counts.values()))
    ordered = sorted(counts, key=_in_order)
    listed = ", ".join(f"{label} ({counts[label] / total:.1%})" for label in ordered[:20])
    more = f", and {len(ordered) - 20} more" if len(ordered) > 20 else ""
    thing = "colours" if kind.has_colors else "values"
    said = f"Of {len(files)} files the {thing} are {listed}{more}. Add"
    named = [label for label in ordered if label != "255" or kind.has_colors]
    if not kind.has_colors and named == [str(i) for i in range(len(named))]:
        names = ", ".join(f"name{i}" for i in range(len(named)))
        return f"{said} {where}.CLASSES: [{names}]"
    pairs = [f"{_quoted(label)}: name{i}" for i, label in enumerate(named[:20])]
    return f"{said} {where}.LABEL_MAP: {{{', '.join(pairs)}}}, with the names of the classes"


def shown_value(value: int, kind: DatasetFormat) -> str:
    """A value of a pixel as LABEL_MAP takes it."""
    if not kind.has_colors:
        return str(value)
    return " ".join(map(str, unpack(value)))


def suggest(
    labels: Sequence[str], names: Sequence[str], where: str, *, has_colors: bool = False
) -> str:
    """The key to add for labels that have no class.

    Args:
        labels: without a class.
        names: of the classes.
        where: of the entry.
        has_colors: they are colours.
    """
    ordered = sorted(labels, key=_in_order)
    values = [int(label) for label in ordered if label.isdecimal()]
    if len(values) == len(ordered) and not has_colors:
        return suggest_values({*range(len(names))} | {*values}, names, where)
    entries = [f"{_quoted(label)}: {IGNORE}" for label in ordered[:_MOST]]
    return (
        f"Add {where}.LABEL_MAP: {{{', '.join(entries)}}}, with a class of "
        f"{shortened(list(names))} for {IGNORE} where it is one"
    )


def suggest_values(values: set[int], names: Sequence[str], where: str) -> str:
    """The key to add where these values of pixels are not 0 to len(names) - 1."""
    ordered = sorted(values - {255})
    count = len(names)
    if len(ordered) == count + 1 and ordered[0] == 0:
        # 0 was counted among them because a class has that index.
        pairs = zip(ordered[1:], names, strict=True)
        start = "Add the class that is missing to CLASSES, or, if 0 is not a class,"
        extra = f"0: {IGNORE}, "
    elif len(ordered) == count:
        pairs = zip(ordered, names, strict=True)
        start, extra = "Add", ""
    else:
        beyond = [value for value in ordered if value >= count]
        ends = ", ".join(f"{value}: {IGNORE}" for value in beyond[:_MOST])
        return (
            f"Add the class to CLASSES, in the order of the values, or {where}.LABEL_MAP: "
            f"{{{ends}}}, with a class's name for {IGNORE} where it is one"
        )
    written = ", ".join(f"{value}: {_quoted(name)}" for value, name in pairs)
    return f"{start} {where}.LABEL_MAP: {{{extra}{written}}}"


def _quoted(name: str) -> str:
    """As YAML takes it."""
    return name if name.replace("_", "a").isalnum() else repr(name)


def _in_order(label: str) -> tuple[int, int, str]:
    return (0, int(label), "") if label.isdecimal() and len(label) < 9 else (1, 0, label)
