"""Whether a file or folder is what it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator

Stamp = tuple[str | int, ...]
# What is known of a file: times of change of its content and of its entry in ns, size, inode. A
# file that replaces another may have its size and the time of its content, but not the others.
_MISSING = (0, 0, 0, 0)


def file_stamp(path: str | os.PathLike) -> Stamp:
    """What changes with a file: its absolute path, times of change, size and inode.

    All but the path are 0 where it is missing or is not a file.
    """
    absolute = os.path.abspath(path)
    return absolute, *(_facts(os.stat(absolute)) if os.path.isfile(absolute) else _MISSING)


def _facts(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def stamp(path: str | os.PathLike, leave_out: Callable[[str], bool] | None = None) -> Stamp:
    """file_stamp; of a folder its absolute path, number of files below it, and a digest of theirs.

    A file that is added, removed, renamed or changed gives another one. Links to folders are not
    followed.

    Args:
        path: of a file or a folder.
        leave_out: whether a folder below it does not count; None = all do.
    """
    if not os.path.isdir(path):
        return file_stamp(path)
    found = sorted(_listed(os.fspath(path), leave_out))
    return os.path.abspath(path), len(found), hashlib.sha256(repr(found).encode()).hexdigest()


def _listed(
    folder: str, leave_out: Callable[[str], bool] | None, prefix: str = ""
) -> Iterator[Stamp]:
    """The name and the facts of each file below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if leave_out is None or not leave_out(entry.path):
                    yield from _listed(entry.path, leave_out, f"{name}/")
                continue
            try:
                # Windows gives no inode in entry.stat().
                facts = _facts(os.stat(entry.path))
            except OSError:  # a link to nothing
                facts = _MISSING
            yield name, *facts
