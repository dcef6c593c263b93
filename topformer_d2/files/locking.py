"""File locks, which the kernel releases when a process ends."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ..errors import InputError
from .folders import make_folder
from .remote import is_remote

try:
    import fcntl
except ImportError:  # Windows, where two runs at once are not kept apart
    fcntl = None

LOCK_NAME = ".lock"


class InUseError(InputError):
    """Another process holds a folder."""


_guard = threading.Lock()
# {file: the descriptor by which this process shares its lock}
_shared: dict[str, int] = {}
# {folder: [its open lock file, the folders made for it, how many blocks of this process hold it]}
_held: dict[str, list] = {}


@contextlib.contextmanager
def locked_output(folder: str | os.PathLike, purpose: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder as the one process that writes into it; the folder is made where missing.

    The lock is one of the file ".lock" in the folder. It ends with its process, so that what a
    killed one leaves of it holds nobody up. At the end of the block the file is removed, and so are
    the folders that were made for it where nothing was written to them. A process may nest such
    blocks. Where the file system has no locks (some network ones), and for a remote store, nothing
    is held.

    Args:
        folder: that is written into.
        purpose: what this process does there, such as "training", for the others' message.
        wait: seconds to wait for another process that holds it to end.

    Raises:
        InputError: another process holds it; the message names that process.
    """
    if fcntl is None or is_remote(folder):
        yield
        return
    key = os.path.realpath(folder)
    until = time.monotonic() + wait
    while not _hold(key, folder, purpose, is_last=time.monotonic() >= until):
        time.sleep(0.5)
    try:
        yield
    finally:
        with _guard:
            if key in _held:  # not in a forked child, which holds nothing
                _held[key][2] -= 1
                if not _held[key][2]:
                    _release(Path(key), *_held.pop(key)[:2])


@contextlib.contextmanager
def waiting_for_lock(path: str | os.PathLike) -> Iterator[None]:
    """Within it no other process is within such a block of the same file, which stays there.

    Where the file system has no locks, nothing is held.

    Args:
        path: of the lock file, in a folder that exists.
    """
    if fcntl is None or is_remote(path):
        yield
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def keep_holding(path: str | os.PathLike) -> None:
    """Share the lock of a file, as long as this process runs.

    Where the file system has no locks, nothing is held.

    Raises:
        OSError: the file cannot be opened or made.
    """
    if fcntl is None or is_remote(path):
        return
    key = os.path.realpath(path)
    with _guard:
        if key not in _shared:
            _shared[key] = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
            )
            with contextlib.suppress(OSError):
                fcntl.flock(_shared[key], fcntl.LOCK_SH)


@contextlib.contextmanager
def holding_alone(path: str | os.PathLike) -> Iterator[bool]:
    """Whether no other process shares the lock of a file by keep_holding; none does within.

    Args:
        path: of the lock file, in a folder that exists.
    """
    if fcntl is None or is_remote(path):
        yield True
        return
    kept = _shared.get(os.path.realpath(path))
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666) if kept is None else kept
    try:
        try:
            is_alone = try_lock(descriptor)
        except OSError:  # a file system without locks
            is_alone = True
        yield is_alone
    finally:
        with contextlib.suppress(OSError):
            if kept is None:
                os.close(descriptor)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_SH)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder for this process alone; False where another has it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _hold(key: str, folder: str | os.PathLike, purpose: str, *, is_last: bool) -> bool:
    """Hold a folder; False where another process does and this is not the last try."""
    with _guard:
        if key in _held:
            _held[key][2] += 1
            return True
        try:
            _held[key] = [*_lock(Path(folder), purpose), 1]
        except InUseError:
            if is_last:
                raise
            return False
    return True


def _lock(folder: Path, purpose: str) -> tuple[TextIO, list[Path]]:
    """The locked file, and the folders that were made for it, the innermost first."""
    real = Path(os.path.realpath(folder))
    made = [each for each in (real, *real.parents) if not each.exists()]
    make_folder(folder)
    path = folder / LOCK_NAME
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    while True:
        file = os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8", errors="replace")
        try:
            is_free = try_lock(file.fileno())
        except OSError:  # a file system without locks
            return file, made
        if not is_free:
            holder = file.read(2000).strip() or "another process"
            file.close()
            raise InUseError(
                f"{folder} is in use by {holder}. Wait until that ends, stop it, or write to "
                "another folder"
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # its holder removed it since it was opened
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) if sys.argv else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = f"process {os.getpid()} on {socket.gethostname()}, {purpose} since {since}"
    with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), f"{holder}: {command[:500]}".encode(errors="replace"))
    return file, made


def _release(folder: Path, file: TextIO, made: list[Path]) -> None:
    """Remove a lock's file while it is locked, and the folders made for it that are empty."""
    with contextlib.suppress(OSError):
        (folder / LOCK_NAME).unlink()
    file.close()
    with contextlib.suppress(OSError):  # the first that is not empty ends it
        for each in made:
            each.rmdir()


def _let_go() -> None:
    """In a forked child: it shares the lock, and would keep it after its parent's death."""
    for file, *_ in _held.values():
        file.close()  # of this process; the parent's stays locked
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
