"""One image, of this machine or of a remote store; and whose fault it is that it cannot be read."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import numpy as np

from ...data.images import read_image
from ...errors import InputError
from ...files import ask_store, check_regular_file, is_remote
from .inputs import open_store

# What a file may have in bytes for each pixel that is read, and for all that is not pixels.
_BYTES_PER_PIXEL, _SOME_BYTES = 16, 1 << 24
# Images of a store that are tried where one cannot be read, and of a run that are kept for that.
_PROBES, _MOST_PROBES = 8, 64
# By store, the image that this process has read last.
_read_last: dict[tuple[str, str], str] = {}


def read_pixels(path: str, max_pixels: int, others: Sequence[str] = ()) -> np.ndarray:
    """An image, (H, W, 3) uint8 BGR.

    A store that does not answer is tried again, so that its rest is no fault of the image. Where
    the system of this machine does not give a file, or a store denies one, others are tried: the
    fault is of this file, or of all.

    Args:
        path: of this machine, or a URI.
        max_pixels: an image of more is not read.
        others: paths of the same run, some of which may be of the same store.

    Raises:
        InputError: it is missing, is no image, is too large or may not be read.
        OSError: the store does not answer, cannot be opened here, or none of the others can be
            read either, as where a disk is not mounted or a token has expired.
    """
    with _blaming(path, others):
        content = _read_remote(path, max_pixels) if is_remote(path) else None
        image = read_image(path, max_pixels=max_pixels, content=content)
    _read_last[_store_of(path)] = path
    return image


def some_of(paths: Sequence[str]) -> list[str]:
    """A few paths of each store, spread evenly, as `others` of an image; of all stores, 64."""
    stores: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        stores.setdefault(_store_of(path), []).append(path)
    found = [path for each in stores.values() for path in each[:: -(-len(each) // _PROBES)]]
    return found[:: -(-len(found) // _MOST_PROBES) or 1]


def _store_of(path: str) -> tuple[str, str]:
    """What tells stores apart; all files of this machine have one."""
    return urlsplit(path)[:2] if is_remote(path) else ("", "")


@contextlib.contextmanager
def _blaming(path: str, others: Sequence[str]) -> Iterator[None]:
    """Within it `path` is read; an OSError where that fails as it would for any other image."""
    try:
        yield
    except PermissionError as e:  # of a store
        if not _can_read_another(path, others):
            raise
        raise InputError(f"{path} may not be read: {e.strerror}") from e
    except InputError as e:
        cause = e.__cause__
        if is_remote(path) or not isinstance(cause, OSError) or cause.errno is None:
            raise  # of the file, and not of the system
        if _can_read_another(path, others):
            raise
        told = f"{cause.strerror}, and no other image can be read on {socket.gethostname()}"
        raise OSError(errno.EIO, told, path) from e


def _can_read_another(path: str, others: Sequence[str]) -> bool:
    known = _read_last.get(_store_of(path))
    same = [other for other in others if _store_of(other) == _store_of(path) and other != path]
    return any(_can_be_read(other) for other in [*([known] if known else []), *some_of(same)])


def _can_be_read(path: str) -> bool:
    """Whether this machine or a store gives a part of a file now."""
    try:
        if not is_remote(path):
            check_regular_file(path)
            with open(path, "rb") as file:
                file.read(1)
            return True
        store, found = open_store(path)
        with store.open_input_stream(found) as file:
            file.read(1)
    except MemoryError:
        raise
    except Exception:  # the libraries of stores have errors of their own
        return False
    return True


def _read_remote(uri: str, max_pixels: int) -> bytes:
    """The bytes of a remote file, of which there may not be more than its pixels can need.

    Raises:
        InputError: there is no such file, or it is too large.
        OSError: the store does not answer, cannot be opened here, or denies it.
    """
    most = _SOME_BYTES + _BYTES_PER_PIXEL * max_pixels

    def read() -> bytes:
        try:
            store, path = open_store(uri)
        except InputError as e:  # which the next file would meet as well
            raise PermissionError(errno.EPERM, str(e), uri) from e
        with store.open_input_stream(path) as file:
            return file.read(most + 1)

    content = ask_store(uri, read)
    if len(content) > most:
        raise InputError(f"{uri} is larger than {most} bytes, which is more than it can need")
    return content
