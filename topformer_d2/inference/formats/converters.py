"""Running a program that converts a graph, without a word on the terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...logs import get_logger

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
        # Of a progress bar its last state.
        lines = [line.rpartition("\r")[2].strip() for line in printed.split("\n")]
        last = "; ".join([line for line in lines if line][-_LAST_LINES:])
        raise RuntimeError(f"{Path(command[0]).name} wrote no {output}, and printed: {last}")
    return folder / output
