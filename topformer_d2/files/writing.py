"""Writing files beside their place and renaming them: a failure leaves what was there before."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from . import locking
from .remote import is_remote
from .room import naming_full_disks

_STREAMS = ("/dev/stdout", "/dev/stderr")
# Names of what is being written: a point, the file's name, process and a random number.
_PARTIAL = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.partial")
# Bytes without which nothing can be written.
_SOME_ROOM = 1 << 16
# Folders of which this process has cleaned away what killed processes left.
_cleaned: set[str] = set()


def write_beside(path: str | os.PathLike, content: bytes, *, durable: bool = False) -> None:
    """Write a file by writing_beside."""
    with writing_beside(path, durable=durable) as f:
        f.write(content)


@contextlib.contextmanager
def writing_beside(path: str | os.PathLike, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which is renamed to `path` at the end of the block.

    A run that fails or is killed leaves what was there before. The file has a name of its own
    until then, which no other process takes, and what a killed process left of this kind is
    removed. A pipe or device is written directly, and /dev/stdout even where it is a file. So is a
    remote store, which has no rename.

    Args:
        path: its folder is made where it is missing.
        durable: return only when the disk has the file, as a checkpoint must be before an older
            one is given up.

    Raises:
        OSError: it cannot be written, as on a full disk; with the name of the file, whatever a
            library that wrote to it made of that.
    """
    if is_remote(path):
        with PathManager.open(os.fspath(path), "wb") as f:
            yield f
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if str(path) in _STREAMS or (path.exists() and not path.is_file() and not path.is_dir()):
        with open(path, "ab") as f:
            yield f
        return
    _clean(path.parent)
    with _naming_target(path):
        partial, descriptor = _create(path, _open_new)
    file = _RememberingFile(os.fdopen(descriptor, "wb"))
    try:
        yield cast(BinaryIO, file)
        file.flush()
        if durable:
            os.fsync(file.fileno())
        if locking.fcntl is None:
            file.close()  # Windows renames no open file
        os.replace(partial, path)  # while it is locked, so that nobody takes it for a left-over
        if durable:
            _sync_folder(path.parent)
    except BaseException as e:
        with contextlib.suppress(OSError):
            partial.unlink()
        cause = file.error if file.error and isinstance(e, Exception) else e
        with _naming_target(path):
            if isinstance(cause, OSError) and cause.errno and cause.filename is None:
                raise OSError(cause.errno, cause.strerror, str(path)) from e
            raise
    finally:
        with contextlib.suppress(OSError):  # of buffered bytes that did not fit; told already
            file.close()


class _RememberingFile:
    """A binary file that keeps the first OSError of a write.

    Libraries such as PyTorch turn it into an error of their own, which does not say that the disk
    is full.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as e:
            self.error = self.error or e
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as e:
            self.error = self.error or e
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def folder_beside(target: str | os.PathLike) -> Iterator[Path]:
    """A folder beside `target` for what is written by name; it is removed with all that is left.

    What a killed process left of this kind is removed as well.

    Args:
        target: a file; its folder is made where it is missing.

    Raises:
        OSError: it cannot be written, as on a full disk; with the name of the target, whatever a
            library made of that.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _clean(target.parent)
    with _naming_target(target):
        folder, descriptor = _create(target, _open_new_folder)
    try:
        with _naming_target(target), naming_full_disks(target, folder, _SOME_ROOM):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def _naming_target(target: Path) -> Iterator[None]:
    """Name `target` in an OSError that names what is written beside it, which nobody knows."""
    try:
        yield
    except OSError as e:
        if e.errno and any(map(_PARTIAL.fullmatch, Path(str(e.filename)).parts)):
            raise OSError(e.errno, e.strerror, str(target)) from e
        raise


def _create(target: Path, open_new: Callable[[Path], int | None]) -> tuple[Path, int | None]:
    """What `open_new` makes under a new name beside `target`, locked, and that name."""
    # A name may have 255 bytes; the start of a long one is enough to know it by.
    name = target.name.encode()[:200].decode(errors="ignore")
    while True:
        path = target.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        descriptor = open_new(path)
        if descriptor is None or _is_locked(descriptor, path):
            return path, descriptor
        os.close(descriptor)


def _open_new(path: Path) -> int:
    # O_EXCL does not follow a link either.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


def _open_new_folder(path: Path) -> int | None:
    path.mkdir(mode=0o700)
    return None if locking.fcntl is None else os.open(path, os.O_RDONLY)


def _is_locked(descriptor: int, path: Path) -> bool:
    """False where another process has taken it for a left-over before it was locked."""
    if locking.fcntl is None:
        return True
    try:
        return locking.try_lock(descriptor) and os.path.samestat(
            os.fstat(descriptor), os.stat(path)
        )
    except FileNotFoundError:
        return False
    except OSError:  # a file system without locks
        return True


def _clean(folder: Path) -> None:
    """Remove, once for each folder, what killed processes were writing there."""
    key = os.path.realpath(folder)
    if key in _cleaned or locking.fcntl is None:
        return
    _cleaned.add(key)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry) -> None:
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if locking.try_lock(descriptor):  # whoever writes it would hold it
            is_folder = entry.is_dir(follow_symlinks=False)
            shutil.rmtree(entry.path) if is_folder else os.unlink(entry.path)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder; some systems cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | os.PathLike, content: object, *, indent: int | None = None) -> None:
    """Write JSON as write_beside does. NaN and infinity, which JSON does not have, become null.

    NumPy's numbers and arrays are written as Python's.
    """
    write_beside(path, json.dumps(_finite(content), allow_nan=False, indent=indent).encode())


def _finite(value: Any) -> Any:
    """A copy of nested dicts and lists whose floats that are not finite are None."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_output(path: str | os.PathLike, name: str) -> None:
    """Find out before the work whether a file can be written; its folder is made.

    Args:
        path: of the file; a remote store's is not tried.
        name: of the parameter by which the user gave it, for the message.

    Raises:
        InputError: it cannot.
    """
    path = os.fspath(path)
    target = Path(path)
    if is_remote(path):
        return
    if target.is_dir():
        raise InputError(f"`{name}` {path} is a folder: name a file in it")
    if target.exists() and not target.is_file():
        return  # such as /dev/stdout, beside which nothing can be written
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as e:
        raise InputError(f"`{name}` {path} cannot be written: {e.strerror}") from e


def check_local_output(path: str, name: str, extension: str) -> None:
    """check_output of a file that is written on this machine and whose name has this extension."""
    path = os.fspath(path)
    if is_remote(path):
        raise InputError(f"`{name}` {path} is a remote store's: name a file on this machine")
    if Path(path).suffix != extension:
        raise InputError(f"`{name}` {path}: the name of such a file ends in {extension}")
    check_output(path, name)
