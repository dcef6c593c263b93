"""Keeping what libraries print off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

from ...logs import get_logger

logger = get_logger(__name__)

# The streams are those of the process: of two threads one waits for the other.
_lock = threading.RLock()


@contextlib.contextmanager
def quietly(what: str) -> Iterator[None]:
    """A block whose output goes to the log, at the level of debugging; also what C code prints.

    Python's warnings are left out. The streams are those of the whole process.

    Args:
        what: prints; for the log.
    """
    with _lock, tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _streams_to(file.fileno()):
                yield
        finally:
            file.seek(0)
            if printed := file.read().decode(errors="replace").strip():
                logger.debug("%s printed:\n%s", what, printed)


@contextlib.contextmanager
def _streams_to(descriptor: int) -> Iterator[None]:
    """Both for C code, which writes to the numbers, and for Python's, whose streams may be others.

    Those go to the numbers meanwhile. A library that keeps one, as handlers of logging do, can go
    on to use it.
    """
    try:
        kept = {number: os.dup(number) for number in (1, 2)}
    except OSError:  # a process without them
        yield
        return
    _flush()
    out, err = (
        open(  # noqa: SIM115
            *(number, "w"), buffering=1, encoding="utf-8", errors="replace", closefd=False
        )
        for number in kept
    )
    try:
        for number in kept:
            os.dup2(descriptor, number)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                yield
            finally:
                _flush()
    finally:
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # none, or closed
            stream.flush()
