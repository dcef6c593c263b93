"""Images and labels in tar files (shards): each is read by its offset, which an index has.

A folder of shards is read as two folders, shard://FOLDER/images and shard://FOLDER/labels. They
stand where a folder's path may stand, such as in DATASETS.FOLDERS, so that records, their order and
what is drawn of them are those of loose files. Detectron2's PathManager knows them.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathHandler, PathManager

from ..errors import InputError
from ..files import Stamp, file_stamp, read_json

SCHEME = "shard://"
INDEX = "index.json"
FORMAT = "topformer_d2 shards 1"
IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True)
class Index:
    """Where the files of a folder of shards are.

    Attributes:
        shards: (path, size in bytes) of each tar file.
        names: {IMAGES or LABELS: (n,) bytes, sorted}.
        places: {the same: (n, 3) int64, of each name the shard, the offset and the size in bytes}.
    """

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
    """The index of a folder of shards; it is kept until its file changes.

    Raises:
        InputError: it is missing or damaged, or a shard is missing or has another size.
    """
    path = os.path.join(folder, INDEX)
    return _read_index(folder, file_stamp(path))


@functools.lru_cache(maxsize=64)
def _read_index(folder: str, _stamp: Stamp) -> Index:
    path = os.path.join(folder, INDEX)
    content = read_json(path)
    try:
        index = _parse(content, Path(folder))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as e:
        raise InputError(
            f"{path} is not an index of shards, or is damaged ({e!r}): make the folder anew by "
            "`topformer data convert`"
        ) from e
    for shard, size in index.shards:
        found = shard.stat().st_size if shard.is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes"
            raise InputError(
                f"{shard} {what}, and {path} says {size}: copy it again from where it was made"
            )
    return index


def _parse(content: Any, folder: Path) -> Index:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}")
    shards = []
    for each in content["shards"]:
        name = each["name"]
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is not a file's name")
        shards.append((folder / name, int(each["size"])))
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
    return Index(shards, names, places)


def read_member(path: str) -> bytes:
    """The content of a file in a shard.

    Args:
        path: shard://FOLDER/images/NAME or shard://FOLDER/labels/NAME.

    Raises:
        InputError: as read_index.
        FileNotFoundError: there is no such file.
    """
    folder, kind, name = _split(path)
    index = read_index(folder) if kind else None
    place = index.find(kind, name) if index is not None else None
    if index is None or place is None:
        raise FileNotFoundError(2, "No such file in the shards", path)
    number, offset, size = place
    with open(index.shards[number][0], "rb", buffering=0) as shard:
        # Processes may have the file open together, so that nothing is sought in it.
        return os.pread(shard.fileno(), size, offset)


def _split(path: str) -> tuple[str, str, str]:
    """The folder of shards, IMAGES or LABELS, and a file's name; "" for what a path has not."""
    inner = path.removeprefix(SCHEME).rstrip("/")
    if os.path.basename(inner) in (IMAGES, LABELS):
        return os.path.dirname(inner), os.path.basename(inner), ""
    above, name = os.path.split(inner)
    folder, kind = os.path.split(above)
    return (folder, kind, name) if kind in (IMAGES, LABELS) else (inner, "", "")


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
        if not name or not os.path.isfile(os.path.join(folder, INDEX)):
            return False
        return read_index(folder).find(kind, name) is not None

    def _isdir(self, path: str, **_: Any) -> bool:
        folder, kind, name = _split(path)
        if not kind or name or not os.path.isfile(os.path.join(folder, INDEX)):
            return False
        return len(read_index(folder).names[kind]) > 0

    def _ls(self, path: str, **_: Any) -> list[str]:
        folder, kind, name = _split(path)
        if not kind or name:
            raise FileNotFoundError(2, "No such folder in the shards", path)
        return [os.fsdecode(each) for each in read_index(folder).names[kind].tolist()]


PathManager.register_handler(ShardHandler(), allow_override=True)
