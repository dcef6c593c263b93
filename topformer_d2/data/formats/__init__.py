"""The formats of datasets that DATASETS.FOLDERS takes: a module each, which defines its FORMAT."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from ...tasks import TASKS
from . import coco, label_images
from .base import IMAGES, DatasetFormat, Paths

# By name. A new format is a module and its entry here.
FORMATS = {module.FORMAT.name: module.FORMAT for module in (label_images, coco)}

__all__ = ["FORMATS", "IMAGES", "DatasetFormat", "Paths", "describe_keys", "formats_of"]


def formats_of(keys: Collection[str]) -> tuple[DatasetFormat, ...]:
    """The formats of an entry of DATASETS.FOLDERS with these keys.

    Returns:
        one; or one for pixels that has `labels` and one for boxes, of the same images; or none,
        where no format has these keys.
    """
    single = [(each,) for each in FORMATS.values()]
    pairs = itertools.permutations(FORMATS.values(), 2)
    joined = [
        (pixels, boxes)
        for pixels, boxes in pairs
        if pixels.labels and (*pixels.tasks, *boxes.tasks) == tuple(TASKS)
    ]
    for formats in (*single, *joined):
        if {IMAGES, *itertools.chain(*(each.keys for each in formats))} == set(keys):
            return formats
    return ()


def describe_keys() -> str:
    """What an entry takes, as "IMAGES and BOXES (objects)", of each format."""
    described = []
    for each in FORMATS.values():
        firsts, last = (IMAGES, *each.keys[:-1]), each.keys[-1]
        tasks = " and ".join(TASKS[task].table for task in each.tasks)
        described.append(f"{', '.join(firsts)} and {last} ({tasks})")
    both = "those of pixels and of objects together (both, of the same images)"
    return f"{', '.join(described)}, or {both}"
