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
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathHandler, PathManager

from ..errors import InputError, shortened
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
# Extensions of files that lie beside the shards; no image and no label has one of them.
_OF_FOLDER = (".json", ".txt")
# Bytes before a file in a tar file, with its name.
_HEADER = tarfile.BLOCKSIZE


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
        if len(wanted) > names.dtype.itemsize:  # NumPy would copy all names to its length
            return None
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
    except ValueError as e:
        why = str(e)
        if isinstance(e, InputError):  # of parse_json, which names the file
            why = f"it {why.removeprefix(path).lstrip()}"
        raise InputError(
            f"{path} is not an index of shards, or is damaged: {why}. Make the folder anew by "
            "`topformer data convert`"
        ) from e
    if not is_remote(folder):
        for shard, size in index.shards:
            check_size(shard, shard.stat().st_size if shard.is_file() else None, size)
    return index


def _parse(content: Any, folder: str, text: bytes, stamp: Stamp) -> Index:
    """The index that a JSON has; ValueError says what is wrong."""
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"its format is {shortened(found)}, and should be {FORMAT!r}")
    # Copies of shards that were made anew under the same names are never taken for these.
    place = Path(folder)
    if is_remote(folder):
        place = cache_folder(hashlib.sha256(folder.encode() + b"\n" + text).hexdigest()[:32])
    listed = content.get("shards")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise ValueError("it has no list of 'shards' with their names and sizes")
    shards = []
    for each in listed:
        name, size = each.get("name"), each.get("size")
        if type(name) is not str or os.path.basename(name) != name or name in ("", ".", ".."):
            raise ValueError(f"{shortened(name)} is not a file's name")
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError(f"the size of {shortened(name)} is {shortened(size)}")
        shards.append((place / name, size))
    sizes = np.array([size for _, size in shards], np.int64)
    names, places = {}, {}
    for kind in (IMAGES, LABELS):
        names[kind], places[kind] = _parse_files(kind, content.get(kind, []), sizes)
    return Index(folder, stamp, shards, names, places)


def _parse_files(kind: str, listed: Any, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index.names and Index.places of a kind.

    Args:
        kind: IMAGES or LABELS.
        listed: [name, shard's number, offset, size] of each.
        sizes: (n,) int64, of the shards in bytes.
    """
    wrong = f"not all of {kind!r} are [name, number of the shard, offset, size]"
    try:
        found = sorted((os.fsencode(name), *place) for name, *place in listed)
        places = np.array([place for _, *place in found] or np.empty((0, 3), np.int64))
    except (TypeError, ValueError) as e:  # such as lists of different lengths
        raise ValueError(wrong) from e
    if places.ndim != 2 or places.shape[1] != 3 or places.dtype.kind != "i":
        raise ValueError(f"{wrong}, the last three whole numbers")
    names, places = np.array([name for name, *_ in found], dtype=bytes), places.astype(np.int64)
    shard, offset, size = places.T
    if len({*names.tolist()}) < len(found):
        raise ValueError("a name stands there twice")
    if not ((shard >= 0) & (shard < len(sizes))).all():
        raise ValueError("a shard's number is out of its range")
    # A sum may be beyond int64.
    if not ((offset >= _HEADER) & (size >= 0) & (offset <= sizes[shard] - size)).all():
        raise ValueError("a file is not within its shard")
    return names, places


def _read_file(path: str) -> bytes:
    """A whole file of the folder of shards, such as its index."""
    return read_from_store(path) if is_remote(path) else read_bytes(path)


def read_member(path: str) -> bytes:
    """The content of a file in a shard, or of another file of the folder of shards.

    The index is that of the last read_index, which does all that lists files. Reading itself looks
    neither at the index nor for the shard again. The name in the tar file is compared: an index of
    other shards, of the same sizes, would give an image another one's label.

    Args:
        path: shard://FOLDER/images/NAME, shard://FOLDER/labels/NAME or shard://FOLDER/FILE.

    Raises:
        InputError: as read_index, or the shard ends in the middle of the file, or has another one
            at its place.
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
    file = open_shard(shard, length, uri, index.stamp)
    content = file.read(offset - _HEADER, size + _HEADER, path)
    stem = os.path.splitext(name)[0]
    # A label beside an image of the same name has the longer one.
    names = [name, f"{stem}.label.png"] if kind == LABELS else [name]
    found = content[: tarfile.LENGTH_NAME].partition(b"\0")[0]
    if found not in [os.fsencode(each)[: tarfile.LENGTH_NAME] for each in names]:
        raise InputError(
            f"{path} cannot be read: {shard} has {shortened(os.fsdecode(found))} at its place, so "
            f"{INDEX} is of other shards: copy the folder again from where it was made"
        )
    return content[_HEADER:]


def why_missing(path: str) -> str:
    """Why a path of shards does not exist, or has nothing; "" for another path."""
    if not path.startswith(SCHEME):
        return ""
    folder, kind, name = _split(path)
    if kind and not name and not _has_index(folder):
        return f"{os.path.join(folder, INDEX)} is missing"
    if not kind and _has_index(folder) and not is_remote(folder):
        return f"a path of shards ends in /{IMAGES} or /{LABELS}, or in the name of a file"
    return "there is none of this name in the shards"


def _split(path: str) -> tuple[str, str, str]:
    """The folder of shards, IMAGES or LABELS, and a file's name; "" for what a path has not."""
    inner = path.removeprefix(SCHEME).rstrip("/")
    if os.path.basename(inner) in (IMAGES, LABELS):
        return os.path.dirname(inner), os.path.basename(inner), ""
    above, name = os.path.split(inner)
    folder, kind = os.path.split(above)
    # The folder of shards may itself be named so, and have INDEX, a class list and a JSON in it.
    is_member = kind in (IMAGES, LABELS) and os.path.splitext(name)[1].lower() not in _OF_FOLDER
    return (folder, kind, name) if is_member else (inner, "", "")


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
