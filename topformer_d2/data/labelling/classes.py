"""Which classes a dataset has, and which of them each label of its files becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError, did_you_mean, shortened
from ..categories import Categories
from ..formats.contract import BACKGROUND, Labelling
from ..formats.raster_pixels import LARGEST_VALUE, pack
from .entry import IGNORE, Entry, label_key

# A value of a pixel is below it: 24 bits of a colour.
NUM_VALUES = LARGEST_VALUE + 1
# Of the pixels: label maps have 8 bits, of which one value is ignored.
MOST_CLASSES = 255


@dataclass(frozen=True)
class ClassMap:
    """The classes of one task of a dataset.

    Attributes:
        names: of the classes, in the order of their indices.
        colors: one for each, or empty.
        index: {label of the files: its class, -1 = not learnt}.
        positions: a number without a name that is below len(names) is the class of that index.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    index: dict[str, int]
    positions: bool = False

    def find(self, label: str) -> int | None:
        """The class of a label, -1 where it is not learnt; None where it is unknown."""
        found = self.index.get(label)
        if found is None and self.positions and label.isdecimal() and int(label) < len(self.names):
            return int(label)
        return found

    def table(
        self, labelling: Labelling, ignore_value: int, *, has_colors: bool = False
    ) -> np.ndarray:
        """(NUM_VALUES,) int16: the training id of each value of a pixel, -1 where it is unknown.

        Args:
            labelling: whose `values` have names.
            ignore_value: the training id of what is not learnt, and that value itself where values
                are not colours.
            has_colors: the values are colours.
        """
        table = np.full(NUM_VALUES, -1, np.int16)
        if not has_colors:
            table[ignore_value] = ignore_value
        if self.positions:
            table[: len(self.names)] = np.arange(len(self.names))
        for label, index in self.index.items():
            value = value_of(label)
            if value is not None:
                table[value] = ignore_value if index < 0 else index
        for value, name in labelling.values.items():
            index = self.find(name)
            if index is not None:
                table[value] = ignore_value if index < 0 else index
        return table


def value_of(label: str) -> int | None:
    """The value of a pixel that LABEL_MAP names by number or by colour; None where it is a name."""
    numbers = label.split()
    if not numbers or not all(number.isdecimal() and len(number) < 9 for number in numbers):
        return None
    if len(numbers) == 1:
        value = int(numbers[0])
        return value if value < NUM_VALUES else None
    if len(numbers) == 3 and all(int(number) < 256 for number in numbers):
        red, green, blue = map(int, numbers)
        return pack((red, green, blue))
    return None


def pixel_classes(
    labelling: Labelling, entry: Entry, listed: Categories | None, *, is_raster: bool, where: str
) -> ClassMap:
    """The classes of the pixels.

    Without CLASSES they are the files' own, in their order; shapes have BACKGROUND before them, for
    the pixels that no shape covers.

    Args:
        labelling: of the files.
        entry: LABEL_MAP and IGNORE are used.
        listed: CLASSES, names and perhaps colours; None = not given.
        is_raster: the files have a value for each pixel.
        where: of the entry, such as "DATASETS.FOLDERS.mine", for messages.

    Raises:
        InputError: LABEL_MAP names a class that CLASSES lacks, or a label of the files is in none
            of them; the message has the key to add.
    """
    sources = list(labelling.names)
    if not is_raster and BACKGROUND not in sources:
        sources.insert(0, BACKGROUND)
    colors = dict(labelling.colors)
    unnamed = is_raster and not labelling.values
    names: Sequence[str] = () if listed is None else listed.names
    index, names = _resolve(sources, entry, names, where, unnamed=unnamed, ids=labelling.ids)
    if listed is not None and listed.colors:
        colors |= dict(zip(listed.names, listed.colors, strict=True))
        if unnamed:
            by_color = {label_key(color): i for i, color in enumerate(listed.colors)}
            index = {**by_color, **index}
    if not names:
        raise InputError(
            f"{where}: the labels have no names of classes: add CLASSES, the path of a text file "
            "or a list such as [road, car], in the order of the labels' values"
        )
    complete = tuple(colors[name] for name in names if name in colors)
    return ClassMap(
        tuple(names),
        complete if len(complete) == len(names) else (),
        index,
        positions=unnamed and listed is not None,
    )


def box_classes(
    labelling: Labelling, entry: Entry, listed: Categories | None, *, where: str
) -> ClassMap:
    """The classes of the objects: as pixel_classes, but never BACKGROUND."""
    names = () if listed is None else tuple(n for n in listed.names if n != BACKGROUND)
    sources = [name for name in labelling.names if name != BACKGROUND]
    index, names = _resolve(sources, entry, names, where, unnamed=False, ids=labelling.ids)
    if not names:
        raise InputError(f"{where}: the labels have no object of a class")
    index.setdefault(BACKGROUND, -1)
    colors = tuple(labelling.colors[name] for name in names if name in labelling.colors)
    return ClassMap(names, colors if len(colors) == len(names) else (), index)


def _resolve(
    sources: Sequence[str],
    entry: Entry,
    listed: Sequence[str],
    where: str,
    *,
    unnamed: bool,
    ids: Mapping[str, str],
) -> tuple[dict[str, int], tuple[str, ...]]:
    """{label: its class or -1}, and the names of the classes."""
    targets: dict[str, str] = {}

    def named(label: str) -> str:
        return label if label in sources else ids.get(label, label)

    for label, target in entry.label_map.items():
        if isinstance(target, int):
            if target == 255 and not listed:
                target = IGNORE
            elif not 0 <= target < len(listed):
                raise InputError(
                    f"{where}.LABEL_MAP makes {label!r} the class {target}; CLASSES has "
                    f"{len(listed)}, from 0: write a class's name, its index or {IGNORE}"
                )
            else:
                target = listed[target]
        label = named(label)
        if targets.setdefault(label, target) != target:
            raise InputError(
                f"{where}.LABEL_MAP makes {label!r} both {targets[label]!r} and {target!r}, by its "
                "name and by its id: write one of them"
            )
    targets |= dict.fromkeys(map(named, entry.ignore), IGNORE)
    meant = {name: targets.get(name, name) for name in sources}
    # Those that LABEL_MAP names by number or colour.
    others = {label: target for label, target in targets.items() if label not in meant}
    if listed:
        names = tuple(listed)
    else:
        wanted = [*meant.values(), *(others.values() if unnamed else ())]
        names = tuple(dict.fromkeys(name for name in wanted if name != IGNORE))
    for label, target in {**others, **meant}.items():
        if target == IGNORE or target in names:
            continue
        if label in targets and (unnamed or label in meant or listed):
            raise InputError(
                f"{where}.LABEL_MAP makes {label!r} the class {target!r}, which CLASSES lacks"
                f"{did_you_mean(target, list(names))}; it has {shortened(list(names))}"
            )
        if label in meant and label != BACKGROUND:
            raise InputError(
                f"{where}: the labels have {label!r}, which CLASSES lacks"
                f"{did_you_mean(label, list(names))}: add it there, or add "
                f"LABEL_MAP: {{{label}: {IGNORE}}} or a class of CLASSES"
            )
    index = {
        label: names.index(target) if target in names else -1
        for label, target in {**others, **meant}.items()
    }
    return index, names
