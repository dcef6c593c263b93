"""Clear errors for full disks, where a library writes the file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError


@contextlib.contextmanager
def naming_full_disks(target: Path, folder: Path, size: int) -> Iterator[None]:
    """A context in which a full disk raises an OSError that names `target`.

    Args:
        target: of the user.
        folder: where the libraries write; names of files in it mean nothing to the user.
        size: of what is written there, in bytes, about. Where as much again does not fit once
            something has failed, that is taken for the cause.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as e:  # the libraries' exceptions have no base of their own
        error = e if isinstance(e, OSError) else _find_limit(folder, size)
        if error is not None and error.errno and not _names_another(error, folder):
            raise OSError(error.errno, error.strerror, str(target)) from e
        raise


def _names_another(error: OSError, folder: Path) -> bool:
    """Whether an error names a file that is not in the folder."""
    return isinstance(error.filename, (str, os.PathLike)) and not Path(
        error.filename
    ).is_relative_to(folder)


def _find_limit(folder: Path, size: int) -> OSError | None:
    """What a file of this size fails for."""
    try:
        with tempfile.TemporaryFile(dir=folder) as f:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(f.fileno(), 0, size)
            else:
                f.write(bytes(size))
    except OSError as e:
        return OSError(e.errno, e.strerror)
    return None
