"""What is kept of a dataset for the next run: an index, and the label maps that it names."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...errors import InputError
from ...files import holding_alone, keep_holding, read_json, write_beside, write_json
from ..object_outlines import packed
from ..severity import SEVERITY
from .classes import ClassMap

INDEX = "index.json"
# Folder of the label maps.
LABELS = "labels"
_IN_USE = ".in_use"
_CLASSES = "classes.json"
_OUTLINES = "outlines.jsonl"

Colors = tuple[tuple[int, int, int], ...]


def read_index(folder: str, key: str) -> dict[str, Any] | None:
    """The index of a cache; None where it is missing, of another key, or damaged.

    From then on, other processes leave the label maps there as long as this one runs.

    Args:
        folder: the cache.
        key: what the index is to be of.

    Raises:
        InputError: something else has its name.
    """
    path = os.path.join(folder, INDEX)
    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path):
        raise InputError(f"{path} is to be a file that is written here: remove it")
    try:
        index = read_json(path)
    except (InputError, OSError):
        return None
    if not isinstance(index, dict) or index.get("key") != key or not _is_sound(index):
        return None
    keep_in_use(folder)
    return index if _has_labels(folder, index) else None


def write_outlines(folder: str, key: str, records: Iterable[dict[str, Any]]) -> None:
    """Take the outlines of objects out of the records of an index, and keep them beside it.

    They are many times as large, and only some trainings need them.

    Args:
        folder: the cache.
        key: what they are of.
        records: each with "outlines", which it has no longer afterwards.
    """
    lines = [json.dumps(key), *(json.dumps(record.pop("outlines", [])) for record in records)]
    write_beside(os.path.join(folder, _OUTLINES), "\n".join(lines).encode())


def add_outlines(folder: str, key: str, records: Sequence[dict[str, Any]]) -> bool:
    """Give the records of an index their "outlines"; False where those are not there, or damaged.

    Args:
        folder: the cache.
        key: what they are to be of.
        records: of the index. Each gets a list with the polygons of each of its boxes, packed.
    """
    try:
        with open(os.path.join(folder, _OUTLINES), "rb") as lines:
            if json.loads(next(lines)) != key:
                return False
            for record, line in zip(records, lines, strict=True):
                # A line at a time: all numbers at once would take many times the arrays' memory.
                record["outlines"] = [packed(polygons) for polygons in json.loads(line)]
                if len(record["outlines"]) != len(record.get("boxes", ())):
                    return False
    except (OSError, StopIteration, TypeError, ValueError):
        return False
    return True


def write_classes(
    folder: str, key: str, classes: Mapping[str, ClassMap], ids: Mapping[str, Sequence[int]]
) -> None:
    """Keep the names and colours of a dataset's classes, which every process asks for first.

    Args:
        folder: the cache.
        key: what they are of.
        classes: of each task.
        ids: of each task, the number of each class in the files; empty = they have none.
    """
    kept = {
        task: {"names": each.names, "colors": each.colors, "ids": list(ids[task])}
        for task, each in classes.items()
    }
    write_json(os.path.join(folder, _CLASSES), {"key": key, "classes": kept})


def read_classes(
    folder: str, key: str, task: str
) -> tuple[tuple[str, ...], Colors, tuple[int, ...]] | None:
    """Names, colours and numbers of a task's classes, as write_classes takes them.

    None where they are missing, or of another key.
    """
    path = os.path.join(folder, _CLASSES)
    if not os.path.isfile(path):
        return None
    try:
        content = read_json(path)
        if content["key"] != key:
            return None
        kept = content["classes"][task]
        names, colors = kept["names"], [(int(r), int(g), int(b)) for r, g, b in kept["colors"]]
        ids = tuple(map(int, kept["ids"]))
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return None
    are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not are_names or any(len(part) not in (0, len(names)) for part in (colors, ids)):
        return None
    return tuple(names), tuple(colors), ids


def keep_in_use(folder: str) -> None:
    """Keep other processes from removing label maps of a cache, as long as this one runs."""
    with contextlib.suppress(OSError):  # a folder that cannot be written; then nothing is removed
        keep_holding(os.path.join(folder, _IN_USE))


@contextlib.contextmanager
def only_user(folder: str) -> Iterator[bool]:
    """Whether no other process uses the label maps of a cache; none begins to within the block."""
    with holding_alone(os.path.join(folder, _IN_USE)) as is_alone:
        yield is_alone


def _is_sound(index: dict[str, Any]) -> bool:
    """Whether an index, which anybody may have written, has the values that it is to have."""
    try:
        return all(map(_is_record, index["records"])) and all(
            kind in SEVERITY and isinstance(file, str) and isinstance(message, str)
            for kind, file, message in index["problems"]
        )
    except (KeyError, TypeError, ValueError):
        return False


def _is_record(record: dict[str, Any]) -> bool:
    width, height = record["size"]
    boxes = record.get("boxes", ())
    label = record.get("label", LABELS)
    return (
        isinstance(record["file"], str)
        and type(record.get("id", 0)) is int
        and type(width) is type(height) is int
        and isinstance(label, str)
        and os.path.basename(label) == label
        and all(
            type(index) is int and isinstance(x0 + y0 + x1 + y1, (int, float))
            for x0, y0, x1, y1, index, _ in boxes
        )
    )


def _has_labels(folder: str, index: dict[str, Any]) -> bool:
    """Whether all label maps are as they were written; one that is not is removed."""
    named = {each["label"]: each.get("label_bytes") for each in index["records"] if "label" in each}
    if not named:
        return True
    place = os.path.join(folder, LABELS)
    try:
        with os.scandir(place) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError:
        return False
    damaged = [name for name, size in named.items() if sizes.get(name) != size]
    for name in damaged:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(place, name))
    return not damaged
