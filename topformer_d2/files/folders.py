"""Folders to write to."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError


def make_folder(path: str | os.PathLike) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        InputError: one of them is a file.
        OSError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as e:
        taken = next((each for each in (path, *path.parents) if os.path.lexists(each)), path)
        raise InputError(f"{path} is to be a folder, but {taken} is a file: name another") from e
