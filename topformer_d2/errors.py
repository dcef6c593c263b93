"""The one exception for what a user can mend, and how the tools show it."""

from __future__ import annotations

import atexit
import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """A config, dataset, image or weight file is not usable; the message names it and the mend."""


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint to append to a message: the closest of `known` in brackets, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def look_up(table: Mapping[str, T], name: str, key: str) -> T:
    """table[name], where `name` is the value of the config key `key`.

    Raises:
        InputError: the table has no such name; the message lists those it has.
    """
    if name not in table:
        known = list(table)
        raise InputError(f"{key} is {name!r}{did_you_mean(str(name), known)}; known: {known}")
    return table[name]


def import_optional(module: str, user: str, install: str) -> ModuleType:
    """A library that only some of this package needs.

    Args:
        module: to import.
        user: what needs it, for the message.
        install: what pip is to install.

    Raises:
        InputError: it is missing; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise InputError(f"{user} needs {module} ({e}): pip install {install}") from e


def summarize(items: list[str], most: int = 3) -> str:
    """How many tensors, and the first few of them: "5 tensors: a, b, c, ... (2 more)"."""
    more = f", ... ({len(items) - most} more)" if len(items) > most else ""
    return f"{len(items)} tensors" + (f": {', '.join(items[:most])}{more}" if items else "")


@contextmanager
def about(path: str) -> Iterator[None]:
    """Name a file in an InputError raised within, whose message does not know it."""
    try:
        yield
    except InputError as e:
        raise InputError(f"{path}: {e}") from e


@contextmanager
def show_input_errors() -> Iterator[None]:
    """Turn an InputError into one message on stderr and exit status 1, without a traceback.

    An OSError, such as a full disk or a folder that is a file, is the user's to mend as well.
    Ctrl-C ends with one word and status 130; a reader that has left, as of `| head -1`, ends it
    without a word and with 141, a shell's status for that.
    """
    atexit.register(_drop_closed_stdout)  # for what is printed after the block
    try:
        yield
        if _drop_closed_stdout():
            raise SystemExit(141)
    except (InputError, OSError) as e:
        if isinstance(e, BrokenPipeError) and _drop_closed_stdout():
            raise SystemExit(141) from None
        # One raised in a loader's worker arrives wrapped in the text of its traceback.
        message = str(e).rpartition(f"{InputError.__qualname__}: ")[2].rstrip()
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _drop_closed_stdout() -> bool:
    """Whether nobody reads stdout any more; what is left to write there is then dropped."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush it once more at its end, and report that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    except (ValueError, AttributeError):  # closed by the program, or there is none
        pass
    return False
