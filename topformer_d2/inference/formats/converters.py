"""Running what converts a graph, and importing what prints, without a word on the terminal."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TextIO

from ...logs import get_logger
from .base import import_extra

logger = get_logger(__name__)

_LAST_LINES = 5  # of what a program printed, in the error


def run_converter(command: Sequence[str], folder: Path, output: str) -> Path:
    """Run a program in a folder; what it prints goes to the log, at the level of debugging.

    Args:
        command: the program and its arguments.
        folder: it runs there, so that what it writes by names of its own lies there.
        output: name of the file in the folder that it is to write.

    Returns:
        the path of that file.

    Raises:
        RuntimeError: it failed, or did not write the file; the message has what it printed last.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    printed = done.stdout.decode(errors="replace")
    logger.debug("%s:\n%s", Path(command[0]).name, printed)
    if done.returncode != 0 or not (folder / output).is_file():
        last = "; ".join(printed.split("\n")[-_LAST_LINES:])
        raise RuntimeError(f"{Path(command[0]).name} wrote no {output}, and printed: {last}")
    return folder / output


def import_quietly(module: str, extra: str) -> ModuleType:
    """import_extra of a library that prints when it is imported; that goes to the log."""
    if module in sys.modules:
        return import_extra(module, extra)
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        with _printing_to(file):
            found = import_extra(module, extra)
        file.seek(0)
        logger.debug("%s: %s", module, file.read())
    return found


@contextlib.contextmanager
def _printing_to(file: TextIO) -> Iterator[None]:
    """Also what is printed in C, which Python's own streams do not see."""
    streams = (1, 2)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    kept = [os.dup(stream) for stream in streams]
    try:
        for stream in streams:
            os.dup2(file.fileno(), stream)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
        file.flush()
    finally:
        for before, stream in zip(kept, streams, strict=True):
            os.dup2(before, stream)
            os.close(before)
