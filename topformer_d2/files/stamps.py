"""Whether a file or folder is what it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

Stamp = tuple[str, int, int | str]


def file_stamp(path: str | os.PathLike) -> Stamp:
    """What changes with a file: its absolute path, time of change in ns and size in bytes.

    The last two are 0 where it is missing or is not a file.
    """
    absolute = os.path.abspath(path)
    if not os.path.isfile(absolute):
        return absolute, 0, 0
    status = os.stat(absolute)
    return absolute, status.st_mtime_ns, status.st_size


def stamp(path: str | os.PathLike) -> Stamp:
    """file_stamp; of a folder its absolute path, number of files below it, and a digest of theirs.

    A file that is added, removed, renamed or changed gives another one. Links to folders are not
    followed.
    """
    if not os.path.isdir(path):
        return file_stamp(path)
    found = sorted(_listed(os.fspath(path)))
    return os.path.abspath(path), len(found), hashlib.sha256(repr(found).encode()).hexdigest()


def _listed(folder: str, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """(name, time of change in ns, size) of each file below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _listed(entry.path, f"{name}/")
                continue
            try:
                status = entry.stat()
            except OSError:  # a link to nothing
                yield name, 0, 0
            else:
                yield name, status.st_mtime_ns, status.st_size
