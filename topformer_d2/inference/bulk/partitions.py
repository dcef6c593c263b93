"""Which images belong together: partitions of the sorted list of all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import punctuation
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from ...errors import InputError, printable
from ...files import read_json

PARTITION_SIZE = 256
RECORD = "record.json"
_PLAIN = punctuation.replace("%", "") + " "  # what is not escaped in a record's names
# Keys of a record, and the types of their values.
_KEYS = {"first": int, "inputs": int, "done": int, "rejected": int, "digest": str, "files": dict}


class Item(NamedTuple):
    """One image of a partition.

    Attributes:
        partition: its number.
        place: of the image in the sorted list of all.
        path: absolute, or a URI.
        name: of its outputs, by output_names.
        image_id: of its boxes in COCO's results.
    """

    partition: int
    place: int
    path: str
    name: str
    image_id: int | str


@dataclass(frozen=True)
class Partitions:
    """The images, cut into partitions of one size; the last one has the rest.

    They depend on the sorted list and the size alone.

    Attributes:
        paths: sorted.
        names: of their outputs.
        image_ids: of their boxes.
        size: images of a partition.
    """

    paths: Sequence[str]
    names: Sequence[str]
    image_ids: Sequence[int | str]
    size: int = PARTITION_SIZE
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise InputError(f"`partition_size` is {self.size}; it takes an integer of 1 or more")
        object.__setattr__(self, "digest", digest_of(self.paths))

    def __len__(self) -> int:
        return -(-len(self.paths) // self.size)

    def places(self, number: int) -> range:
        """The places of a partition's images in the sorted list."""
        return range(number * self.size, min((number + 1) * self.size, len(self.paths)))

    def items(self, number: int) -> list[Item]:
        """A partition's images."""
        return [
            Item(number, i, self.paths[i], self.names[i], self.image_ids[i])
            for i in self.places(number)
        ]

    def digest_of(self, number: int) -> str:
        """The SHA-256 of a partition's paths."""
        places = self.places(number)
        return digest_of(self.paths[places.start : places.stop])


def digest_of(paths: Sequence[str]) -> str:
    """The SHA-256 of a list of paths."""
    found = hashlib.sha256()
    for path in paths:
        found.update(os.fsencode(path) + b"\0")
    return found.hexdigest()


def partition_folder(output: Path, number: int) -> Path:
    """Where the results of a partition are."""
    return output / f"part-{number:06d}"


@dataclass(frozen=True)
class Record:
    """What says that a partition is done, as its record.json has it.

    Attributes:
        first: the place of its first image in the sorted list.
        inputs: images.
        done, rejected: how many of them were predicted, and how many could not be.
        digest: of the paths.
        files: bytes of each file of the partition, by its path in the partition's folder.
    """

    first: int
    inputs: int
    done: int
    rejected: int
    digest: str
    files: dict[str, int]

    def to_json(self) -> bytes:
        """The content of the file. Names are escaped as in a URL: they need not be UTF-8."""
        values = {key: getattr(self, key) for key in _KEYS}
        values["files"] = {quote(os.fsencode(name), _PLAIN): n for name, n in self.files.items()}
        return json.dumps(values).encode()


def read_record(folder: Path) -> Record:
    """The record of a partition.

    Raises:
        InputError: there is none, or it is another thing.
    """
    path = folder / RECORD
    try:
        values: Any = read_json(os.fspath(path))
    except InputError as e:
        raise InputError(f"{e}: remove the folder {folder}, and it is made again") from e
    if not isinstance(values, dict) or set(values) != set(_KEYS):
        raise InputError(f"{path} is no record of a partition: remove the folder {folder}")
    for key, kind in _KEYS.items():
        if type(values[key]) is not kind:
            raise InputError(f"{path}: {key} is no {kind.__name__}: remove the folder {folder}")
    files = {os.fsdecode(unquote_to_bytes(name)): n for name, n in values["files"].items()}
    return Record(**{**values, "files": files})


def done_partitions(output: Path, partitions: Partitions) -> dict[int, Record]:
    """The records of the partitions that are done, by number; all is checked but the files' bytes.

    They are without the names of the files, which would take memory for each image.

    Raises:
        InputError: a partition's folder has no record or not its files, or it is of other images.
    """
    found = {}
    with os.scandir(output) as entries:
        there = {entry.name for entry in entries if entry.name.startswith("part-")}
    for number in range(len(partitions)):
        folder = partition_folder(output, number)
        if folder.name in there:
            there.remove(folder.name)
            found[number] = _checked(folder, number, partitions)
    if there:
        other = printable(os.fspath(output / min(there)), newlines=True)
        raise InputError(f"{other} is of no partition of this run: move it away")
    return found


def _checked(folder: Path, number: int, partitions: Partitions) -> Record:
    again = f"remove the folder {folder}, and it is made again"
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder} has no {RECORD}: {again}")
    record, places = read_record(folder), partitions.places(number)
    if (record.first, record.inputs) != (places.start, len(places)):
        raise InputError(f"{folder} has other images than this run would put there: {again}")
    if record.digest != partitions.digest_of(number):
        raise InputError(f"{folder} has other images than this run would put there: {again}")
    if record.done + record.rejected != record.inputs or record.done < 0 or record.rejected < 0:
        raise InputError(f"{folder / RECORD}: done and rejected do not make its inputs: {again}")
    for name, size in record.files.items():
        try:
            there: int | None = os.stat(folder / name).st_size
        except OSError:
            there = None
        if there != size:
            has = "is missing" if there is None else f"has {there} bytes and not {size}"
            path = printable(os.fspath(folder / name), newlines=True)
            raise InputError(f"{path} {has}, since a run has written it: {again}")
    return replace(record, files={})


def read_lines(files: Sequence[Path]) -> Iterator[bytes]:
    """The lines of several files, one file after the other; those that are missing have none."""
    for file in files:
        if file.exists():
            with open(file, "rb") as f:
                yield from f
