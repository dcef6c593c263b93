"""Where results are to be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import InputError


def check_output(path: str, option: str) -> None:
    """Find out before the work whether a file can be written; its folder is made.

    Args:
        path: of the file; a remote store's is not tried.
        option: by which the user gave it, for the message.

    Raises:
        InputError: it cannot.
    """
    target = Path(path)
    if "://" in path:
        return
    if target.is_dir():
        raise InputError(f"{option} {path} is a folder: name a file in it")
    if target.exists() and not target.is_file():
        return  # such as /dev/stdout, beside which nothing can be written
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as e:
        raise InputError(f"{option} {path} cannot be written: {e.strerror}") from e


def check_local_output(path: str, option: str, extension: str) -> None:
    """check_output of a file that is written on this machine and whose name has this extension."""
    if "://" in path:
        raise InputError(f"{option} {path} is a remote store's: name a file on this machine")
    if Path(path).suffix != extension:
        raise InputError(f"{option} {path}: the name of such a file ends in {extension}")
    check_output(path, option)
