"""Keeping what libraries print off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from ...logs import get_logger

logger = get_logger(__name__)


@contextlib.contextmanager
def quietly(what: str) -> Iterator[None]:
    """A block whose output goes to the log, at the level of debugging; also what C code prints.

    Python's warnings are left out. The streams are those of the whole process.

    Args:
        what: prints; for the log.
    """
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
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
    streams = {1: sys.stdout, 2: sys.stderr}
    _flush(*streams.values())
    before = {number: os.dup(number) for number in streams}
    try:
        for number in streams:
            os.dup2(descriptor, number)
        yield
    finally:
        _flush(*streams.values())
        for number, kept in before.items():
            os.dup2(kept, number)
            os.close(kept)


def _flush(*streams: object) -> None:
    for stream in streams:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # none, or closed
            stream.flush()  # type: ignore[attr-defined]
