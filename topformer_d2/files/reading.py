"""Reading untrusted files: with limits, and without running code."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.utils.file_io import PathManager

from ..errors import InputError
from .remote import is_remote

# Half of a character that UTF-16 writes in two; Python reads one from JSON and cannot write it.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular_file(path: str | os.PathLike) -> None:
    """Raise InputError where `path` is missing or is not a file, as a pipe, device or folder is.

    Reading a pipe waits for a writer, possibly for ever, and a device may never end.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as e:  # missing, a link to itself, no permission
        raise InputError(f"{os.fspath(path)} cannot be read: {e.strerror}") from e
    except ValueError as e:  # a zero byte
        raise InputError(f"{os.fspath(path)!r} cannot be a path: {e}") from e
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "not a regular file")
        raise InputError(f"{os.fspath(path)} is {kind}; it takes a file")


def read_bytes(path: str, *, most: int | None = None) -> bytes:
    """The content of a regular file, or of a remote one by iopath.

    Args:
        path: local, or one that iopath's PathManager knows.
        most: bytes; a larger file is refused.

    Raises:
        InputError: it is missing, is not a regular file, is too large or cannot be read.
    """
    path = os.fspath(path)
    if not is_remote(path):
        check_regular_file(path)
    try:
        with PathManager.open(path, "rb") as f:
            content = f.read() if most is None else f.read(most + 1)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    if most is not None and len(content) > most:
        raise InputError(f"{path} is larger than {most} bytes, which is more than it can need")
    return content


def read_text(path: str, *, most: int | None = None) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; arguments as read_bytes.

    Raises:
        InputError: as read_bytes, or it is not UTF-8.
    """
    try:
        return read_bytes(path, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is not UTF-8 text: {e}") from e


def read_json(path: str) -> Any:
    """The content of a JSON file, with or without a byte order mark.

    Raises:
        InputError: as read_bytes and parse_json.
    """
    return parse_json(read_bytes(path), path)


def parse_json(content: bytes | str, path: str) -> Any:
    """The values of JSON that was read from `path`, which the messages name.

    Raises:
        InputError: it is not UTF-8 or not JSON, is nested too deep, or has a name with half a
            character (a lone surrogate), which cannot be written again.
    """
    with naming_json_errors(path):
        data = content.encode() if isinstance(content, str) else content
        values = json.loads(data.decode("utf-8-sig"))
        if _SURROGATE.search(data):
            json.dumps(values, ensure_ascii=False).encode()
        return values


@contextmanager
def naming_json_errors(path: str) -> Iterator[None]:
    """InputError, which names `path`, for what the JSON that was read from it raises within."""
    try:
        yield
    except RecursionError as e:
        raise InputError(f"{path} is JSON that is nested too deep to be read") from e
    except UnicodeEncodeError as e:
        raise InputError(f"{path} has text with half a character (a lone surrogate): {e}") from e
    except UnicodeDecodeError as e:
        what = f"it is not UTF-8 text ({e.reason}): save it as UTF-8"
        raise InputError(f"{path} is not JSON: {what}") from e
    except ValueError as e:
        raise InputError(f"{path} is not JSON: {e}") from e
