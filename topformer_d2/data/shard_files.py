"""Tar files that stay open while they are read; remote ones are copied to this machine first."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path

from iopath.common.file_io import get_cache_dir

from ..errors import InputError
from ..files import Stamp, copy_from_store, waiting_for_lock
from ..logs import get_logger

logger = get_logger(__name__)

# Files that a process keeps open; of 1024, which it may open on most systems.
_MOST_OPEN = 128


class ShardFile:
    """An open tar file, of which processes and threads read parts at the same time."""

    def __init__(self, path: Path, size: int):
        """
        Args:
            path: of the file.
            size: in bytes, that it must have.

        Raises:
            InputError: it has another size.
            OSError: it cannot be opened.
        """
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by __del__)
        self._lock = threading.Lock()
        check_size(path, os.fstat(self._file.fileno()).st_size, size)

    def __del__(self) -> None:
        # Not by whoever gives it up, as another thread may be reading.
        if hasattr(self, "_file"):
            self._file.close()

    def read(self, offset: int, size: int, name: str) -> bytes:
        """A part of the file.

        Args:
            offset, size: in bytes.
            name: of what lies there, for the message.

        Raises:
            InputError: the file ends before.
        """
        content = b""
        while len(content) < size:
            more = self._read(offset + len(content), size - len(content))
            if not more:
                raise InputError(
                    f"{name} cannot be read: {self.path} ends at byte {offset + len(content)}, in "
                    "the middle of it: copy that file again from where it was made"
                )
            content += more
        return content

    def _read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            # Forked processes share the position in the file, so that nothing is sought.
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:  # Windows, which does not fork
            self._file.seek(offset)
            return self._file.read(size)


@functools.lru_cache(maxsize=_MOST_OPEN)
def open_shard(path: Path, size: int, uri: str, _stamp: Stamp) -> ShardFile:
    """A shard, which is kept open.

    Args:
        path: of the file.
        size: in bytes.
        uri: of a remote store, from where it is copied if it is not there yet; "" = none.
        _stamp: of the index that names it, so that a shard is opened again with a new index.

    Raises:
        InputError, OSError: it is missing, has another size or cannot be copied.
    """
    if uri and not _is_whole(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting_for_lock(path.with_name(f".{path.name}.lock")):
            if not _is_whole(path, size):  # or another process has copied it meanwhile
                logger.info("Copying %s to %s", uri, path)
                copy_from_store(uri, path, size)
    return ShardFile(path, size)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def check_size(path: Path, found: int | None, size: int) -> None:
    """Raise InputError where a shard has another size than its index says; None = is missing."""
    if found != size:
        what = "is missing" if found is None else f"has {found} bytes"
        raise InputError(
            f"{path} {what}, and its {size} bytes are in the index: copy it again from where it "
            "was made"
        )


def cache_folder(name: str) -> Path:
    """The folder of this machine for copies of remote shards, below iopath's cache."""
    return Path(get_cache_dir(), "topformer_d2_shards", name)
