"""Files of remote stores, such as s3://, read by fsspec."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError, import_optional
from .writing import folder_beside

T = TypeVar("T")

# Seconds before a store that does not answer is tried again.
_WAITS = (1.0, 4.0, 15.0)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries say that have no PermissionError for it, such as pyarrow's of S3.
_DENIED = re.compile(r"access[ _]?denied|forbidden|permission[ _]?denied", re.IGNORECASE)


def fsspec_store(uri: str) -> tuple[Any, str]:
    """fsspec's file system of a URI, and the path in it.

    Raises:
        InputError: fsspec does not know the scheme, a library is missing, or it cannot open the
            store.
    """
    fsspec = import_optional("fsspec", uri, "fsspec")
    try:
        return fsspec.core.url_to_fs(uri)  # which keeps its stores
    except ValueError as e:  # it has no store for the scheme, or that does not take the address
        raise InputError(
            f"{uri} cannot be opened: {told(e)}. Correct the address, or install the library that "
            "gives fsspec its scheme, such as s3fs for s3://"
        ) from e
    except Exception as e:  # each library has its own
        raise InputError(f"{uri} cannot be opened: {told(e)}") from e


def told(error: Exception) -> str:
    """What an error of a library says, which may be no OSError: its kind is a part of that."""
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def is_in_store(uri: str) -> bool:
    """Whether a URI is that of a file; raises as read_from_store, but for a missing file."""
    store, path = fsspec_store(uri)
    return ask_store(uri, lambda: store.isfile(path))


def read_from_store(uri: str) -> bytes:
    """The content of a remote file. A store that does not answer is asked again for 20 seconds.

    Raises:
        InputError: there is no such file, or as fsspec_store.
        OSError: the store does not answer, or does not let the file be read.
    """
    store, path = fsspec_store(uri)
    return ask_store(uri, lambda: store.cat_file(path))


def copy_from_store(uri: str, target: str | os.PathLike, size: int) -> None:
    """Copy a remote file to this machine, whole or not at all.

    Args:
        uri: of the file.
        target: where it is to be; its folder is made where it is missing.
        size: in bytes, that it must have.

    Raises:
        InputError: it has another size, or as read_from_store.
        OSError: as read_from_store, or `target` cannot be written.
    """
    store, path = fsspec_store(uri)
    with folder_beside(target) as beside:
        copy = beside / Path(target).name
        ask_store(uri, lambda: store.get_file(path, str(copy)))
        if (found := copy.stat().st_size) != size:
            raise InputError(
                f"{uri} has {found} bytes, and should have {size}: copy it again from where it was "
                "made"
            )
        with open(copy, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(copy, target)


def ask_store(uri: str, question: Callable[[], T]) -> T:
    """What a question about a file of a store gives, asked again where the store does not answer.

    Raises:
        InputError: there is no such file.
        OSError: the store does not answer, or does not let the file be read.
    """
    for wait in (*_WAITS, None):
        try:
            return question()
        except (FileNotFoundError, IsADirectoryError) as e:
            raise InputError(f"{uri} cannot be read: {e.strerror or 'No such file'}") from e
        except PermissionError as e:  # such as that of a token that has expired
            raise PermissionError(errno.EPERM, e.strerror or str(e), uri) from e
        except MemoryError:
            raise
        except Exception as e:  # the libraries of stores have errors of their own
            if _DENIED.search(str(e)):
                raise PermissionError(errno.EPERM, told(e), uri) from e
            if isinstance(e, OSError) and e.errno in _FULL:  # the disk of this machine
                raise
            if wait is None:
                raise OSError(errno.EIO, f"the store does not answer: {told(e)}", uri) from e
            time.sleep(wait)
    raise AssertionError
