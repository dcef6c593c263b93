"""The formats of datasets that DATASETS.FOLDERS takes: a module each, which defines its FORMAT."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from ...tasks import TASKS
from . import coco, label_images
from .base import IMAGES, DatasetFormat, Paths

__all__ = ["FORMATS", "IMAGES", "DatasetFormat", "Paths", "describe_keys", "formats_of", "register"]

# By name.
FORMATS: dict[str, DatasetFormat] = {}


def register(new: DatasetFormat) -> None:
    """Add a format to FORMATS.

    Raises:
        ValueError: its name is taken, it has no keys, its class_keys are not among them, or an
            entry with its keys could be of another format.
    """
    if new.name in FORMATS:
        raise ValueError(f"a dataset format {new.name!r} is registered already")
    if not new.keys:
        raise ValueError(f"the dataset format {new.name!r} has no keys beside {IMAGES}")
    if outside := sorted({*new.class_keys} - {*new.keys}):
        raise ValueError(f"class_keys of the dataset format {new.name!r} has {outside}: not a key")
    _by_keys([*FORMATS.values(), new])
    FORMATS[new.name] = new


def formats_of(keys: Collection[str]) -> tuple[DatasetFormat, ...]:
    """The formats of an entry of DATASETS.FOLDERS with these keys.

    Returns:
        one; or one for pixels that has `labels` and one for boxes, of the same images; or none,
        where no format has these keys.
    """
    return _by_keys(FORMATS.values()).get(frozenset(keys), ())


def _by_keys(formats: Collection[DatasetFormat]) -> dict[frozenset, tuple[DatasetFormat, ...]]:
    """The formats that an entry of these keys has: each, and those that are joined.

    Raises:
        ValueError: two of them have the same keys.
    """
    joined = [
        (pixels, boxes)
        for pixels, boxes in itertools.permutations(formats, 2)
        if pixels.labels and (*pixels.tasks, *boxes.tasks) == tuple(TASKS)
        # A key of both would give one file to both tasks.
        if not set(pixels.keys) & set(boxes.keys)
    ]
    found: dict[frozenset, tuple[DatasetFormat, ...]] = {}
    for several in (*((each,) for each in formats), *joined):
        keys = frozenset({IMAGES, *itertools.chain(*(each.keys for each in several))})
        if other := found.get(keys):
            names = [" with ".join(each.name for each in those) for those in (other, several)]
            raise ValueError(f"the dataset formats {names} have the same keys: {sorted(keys)}")
        found[keys] = several
    return found


def describe_keys() -> str:
    """What an entry takes, as "IMAGES and BOXES (objects)", of each format."""
    described = []
    for each in FORMATS.values():
        firsts, last = (IMAGES, *each.keys[:-1]), each.keys[-1]
        tasks = " and ".join(TASKS[task].table for task in each.tasks)
        described.append(f"{', '.join(firsts)} and {last} ({tasks})")
    both = "those of pixels and of objects together (both, of the same images)"
    return f"{', '.join(described)}, or {both}"


# A new format is a module and its entry here.
for _module in (label_images, coco):
    register(_module.FORMAT)
