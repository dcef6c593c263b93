"""Images and labels in tar files (shards): each is read by its offset, which an index has.

A folder of shards is read as two folders, shard://FOLDER/images and shard://FOLDER/labels. They
stand where a folder's path may stand, such as in DATASETS.FOLDERS, so that records, their order and
what is drawn of them are those of loose files. Detectron2's PathManager knows them. FOLDER may be
one of a remote store, such as s3://bucket/shards.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathHandler, PathManager

from ..errors import InputError
from ..files import (
    Stamp,
    file_stamp,
    is_in_store,
    is_remote,
    parse_json,
    read_bytes,
    read_from_store,
)
from .shard_files import cache_folder, check_size, open_shard

SCHEME = "shard://"
INDEX = "index.json"
FORMAT = "topformer_d2 shards 1"
IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True)
class Index:
    """Where the files of a folder of shards are.

    Attributes:
        folder: the folder of shards.
        stamp: of the index's file.
        shards: (path on this machine, size in bytes) of each tar file.
        names: {IMAGES or LABELS: (n,) bytes, sorted}.
        places: {the same: (n, 3) int64, of each name the shard, the offset and the size in bytes}.
    """

    folder: str
    stamp: Stamp
    shards: list[tuple[Path, int]]
    names: dict[str, np.ndarray]
    places: dict[str, np.ndarray]

    def find(self, kind: str, name: str) -> tuple[int, int, int] | None:
        """Shard, offset and size of a file; None where there is none of this name."""
        names, wanted = self.names[kind], os.fsencode(name)
        place = int(np.searchsorted(names, wanted))
        if place == len(names) or names[place] != wanted:
            return None
        shard, offset, size = self.places[kind][place].tolist()
        return shard, offset, size


def index_of(shards: Sequence[Path], files: dict[str, list[tuple]]) -> dict:
    """The content of INDEX.

    Args:
        shards: in their order.
        files: {IMAGES or LABELS: (name, shard's number, offset, size) of each}.
    """
    named = [{"name": path.name, "size": path.stat().st_size} for path in shards]
    return {"format": FORMAT, "shards": named, **files}


def read_index(folder: str) -> Index:
    """The index of a folder of shards; it is kept until its file changes, a remote one for good.

    Raises:
        InputError: it is missing or damaged, or a shard is missing or has another size.
        OSError: a remote store does not answer.
    """
    stamp: Stamp = () if is_remote(folder) else file_stamp(os.path.join(folder, INDEX))
    _stamps[folder] = stamp
    return _read_index(folder, stamp)


# Of the indices that this process has read last, by their folders.
_stamps: dict[str, Stamp] = {}


@functools.lru_cache(maxsize=64)
def _read_index(folder: str, stamp: Stamp) -> Index:
    path = os.path.join(folder, INDEX)
    content = _read_file(path)
    try:
        index = _parse(parse_json(content, path), folder, content, stamp)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as e:
        raise InputError(
            f"{path} is not an index of shards, or is damaged ({e!r}): make the folder anew by "
            "`topformer data convert`"
        ) from e
    if not is_remote(folder):
        for shard, size in index.shards:
            check_size(shard, shard.stat().st_size if shard.is_file() else None, size)
    return index


def _parse(content: Any, folder: str, text: bytes, stamp: Stamp) -> Index:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}")
    # Copies of shards that were made anew under the same names are never taken for these.
    place = Path(folder)
    if is_remote(folder):
        place = cache_folder(hashlib.sha256(folder.encode() + b"\n" + text).hexdigest()[:32])
    shards = []
    for each in content["shards"]:
        name = each["name"]
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not a file's name")
        shards.append((place / name, int(each["size"])))
    names, places = {}, {}
    for kind in (IMAGES, LABELS):
        found = sorted((os.fsencode(name), *place) for name, *place in content.get(kind, []))
        names[kind] = np.array([name for name, *_ in found], dtype=bytes)
        places[kind] = np.array([place for _, *place in found], np.int64).reshape(-1, 3)
        sizes = np.array([size for _, size in shards], np.int64)
        shard, offset, size = places[kind].T
        if len({*names[kind].tolist()}) < len(found):
            raise ValueError("a name stands there twice")
        if len(found) and not ((shard >= 0) & (shard < len(shards))).all():
            raise ValueError("a shard's number is out of its range")
        if not ((offset >= 0) & (size >= 0) & (offset + size <= sizes[shard])).all():
            raise ValueError("a file ends behind its shard")
    return Index(folder, stamp, shards, names, places)


def _read_file(path: str) -> bytes:
    """A whole file of the folder of shards, such as its index."""
    return read_from_store(path) if is_remote(path) else read_bytes(path)


def read_member(path: str) -> bytes:
    """The content of a file in a shard, or of another file of the folder of shards.

    The index is that of the last read_index, which does all that lists files. Reading itself looks
    neither at the index nor for the shard again.

    Args:
        path: shard://FOLDER/images/NAME, shard://FOLDER/labels/NAME or shard://FOLDER/FILE.

    Raises:
        InputError: as read_index, or the shard ends in the middle of the file.
        FileNotFoundError: there is no such file.
        OSError: a remote store does not answer.
    """
    folder, kind, name = _split(path)
    if not kind:
        return _read_file(folder)
    stamp = _stamps.get(folder)
    index = read_index(folder) if stamp is None else _read_index(folder, stamp)
    place = index.find(kind, name)
    if place is None:
        raise FileNotFoundError(2, "No such file in the shards", path)
    number, offset, size = place
    shard, length = index.shards[number]
    uri = f"{folder}/{shard.name}" if is_remote(folder) else ""
    return open_shard(shard, length, uri, index.stamp).read(offset, size, path)


def _split(path: str) -> tuple[str, str, str]:
    """The folder of shards, IMAGES or LABELS, and a file's name; "" for what a path has not."""
    inner = path.removeprefix(SCHEME).rstrip("/")
    if os.path.basename(inner) in (IMAGES, LABELS):
        return os.path.dirname(inner), os.path.basename(inner), ""
    above, name = os.path.split(inner)
    folder, kind = os.path.split(above)
    return (folder, kind, name) if kind in (IMAGES, LABELS) else (inner, "", "")


def _has_index(folder: str) -> bool:
    """Whether there is an index to read; that of a remote folder is named where it is missing."""
    return is_remote(folder) or os.path.isfile(os.path.join(folder, INDEX))


class ShardHandler(PathHandler):
    """What Detectron2's PathManager does with a path that begins with shard://; reading alone."""

    def _get_supported_prefixes(self) -> list[str]:
        return [SCHEME]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> Any:
        if mode not in ("r", "rt", "rb"):
            raise InputError(f"{path} is in a shard, which is only read")
        content = read_member(path)
        return io.BytesIO(content) if mode == "rb" else io.StringIO(content.decode())

    def _exists(self, path: str, **_: Any) -> bool:
        return self._isfile(path) or self._isdir(path)

    def _isfile(self, path: str, **_: Any) -> bool:
        folder, kind, name = _split(path)
        if not kind:
            return is_in_store(folder) if is_remote(folder) else os.path.isfile(folder)
        return bool(name) and _has_index(folder) and read_index(folder).find(kind, name) is not None

    def _isdir(self, path: str, **_: Any) -> bool:
        folder, kind, name = _split(path)
        if not kind or name or not _has_index(folder):
            return False
        return len(read_index(folder).names[kind]) > 0

    def _ls(self, path: str, **_: Any) -> list[str]:
        folder, kind, name = _split(path)
        if not kind or name:
            raise FileNotFoundError(2, "No such folder in the shards", path)
        return [os.fsdecode(each) for each in read_index(folder).names[kind].tolist()]


PathManager.register_handler(ShardHandler(), allow_override=True)
