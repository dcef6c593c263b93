"""The one exception for what a user can fix, and how the command shows it."""

from __future__ import annotations

import atexit
import difflib
import errno
import importlib
import os
import re
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn, TypeVar

T = TypeVar("T")

# Control characters but newline and tab, what turns the direction of text, and half characters,
# which stand for the bytes of a file name that is not UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What the libraries say when an allocation fails; none of them raises a MemoryError.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|(insufficient|not enough) memory|bad_?alloc|"
    "failed to allocate",
    re.IGNORECASE,
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What the next file meets as well: a full or read-only disk, no permission, a reader that is gone.
_ENDS_RUN = (
    *(*_DISK_FULL, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.EPIPE),
)


def printable(text: str, *, newlines: bool = False) -> str:
    """`text` as a terminal can show it: what would control the terminal is escaped, as in "\\x1b".

    Args:
        text: such as the name of a file that somebody else named.
        newlines: also escape those, as in a name.
    """
    text = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
    return text.replace("\n", "\\n") if newlines else text


def cut(text: str, most: int = 300) -> str:
    """The first `most` characters of a text, and "..." where there are more, as one line."""
    text = printable(text, newlines=True)
    return text if len(text) <= most else f"{text[:most]}..."


def shortened(value: object, most: int = 200) -> str:
    """cut() of a value's repr, which stays cheap however long or nested the value is."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = short.maxtuple = 8
    short.maxstring = short.maxother = short.maxlong = 60
    return cut(short.repr(value), most)


def shown(path: str | os.PathLike) -> str:
    """The absolute path of a file, as a line on a terminal can show it."""
    return printable(os.path.abspath(path), newlines=True)


class InputError(ValueError):
    """A config, dataset, image or weight file is not usable; the message names it and the fix."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ForkedError(InputError):
    """This process was forked from one that had opened a Predictor, whose threads it lacks."""

    def __init__(
        self,
        message: str = "this process was forked from one that had opened a Predictor, and would "
        'hang: start processes by multiprocessing\'s "spawn", to which a Predictor can be sent, or '
        "fork first and open a Predictor in each process",
    ):
        super().__init__(message)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which keeps what is done as Ctrl-C does."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library, PyTorch, OpenCV and the runtimes among them, could not get memory."""
    if isinstance(error, MemoryError):
        return True
    return not isinstance(error, InputError) and bool(_NO_MEMORY.search(str(error)))


def is_disk_full(error: Exception) -> bool:
    """Whether a disk, or the user's quota of it, has no room left."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def trouble_of_one(error: Exception, file: str) -> str | None:
    """What is wrong with one file of many, in one line that names it.

    Returns:
        the line; None where the other files would meet the error as well.
    """
    if isinstance(error, ForkedError):
        return None
    if is_out_of_memory(error):
        reason = "not enough memory for an image of this size"
    elif isinstance(error, OSError) and error.errno not in _ENDS_RUN:
        reason = describe_os_error(error)
    elif isinstance(error, InputError):
        reason = str(error)
    else:
        return None
    reason, name = (printable(text, newlines=True) for text in (reason, file))
    return reason if name in reason else f"{name}: {reason}"


def message_of(error: InputError) -> str:
    """An InputError's message. One of a loader's process comes in the text of its traceback."""
    return str(error).rpartition(f"{InputError.__qualname__}: ")[2].rstrip()


def describe_os_error(error: OSError) -> str:
    """ "FILE: No space left on device", without Python's number."""
    if error.strerror is None:
        return str(error)
    name = "" if error.filename is None else f"{error.filename}: "
    return f"{name}{error.strerror}"


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
        InputError: it is missing or cannot be loaded; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise InputError(f"{user} needs {module} ({e}): pip install {install}") from e
    except (ImportError, OSError) as e:  # of a library in C, or of a part of it
        raise InputError(
            f"{user} needs {module}, which is installed and cannot be loaded ({e}): pip install "
            f"--force-reinstall {install}"
        ) from e


def summarize(items: list[str], what: str = "tensors", most: int = 3) -> str:
    """How many there are, and the first few: "5 tensors: a, b, c, ... (2 more)"."""
    more = f", ... ({len(items) - most} more)" if len(items) > most else ""
    return f"{len(items)} {what}" + (f": {', '.join(items[:most])}{more}" if items else "")


@contextmanager
def about(path: str) -> Iterator[None]:
    """Name a file in an InputError raised within, whose message does not know it."""
    try:
        yield
    except InputError as e:
        raise InputError(f"{path}: {e}") from e


@contextmanager
def show_input_errors(reword: Callable[[str], str] = str) -> Iterator[None]:
    """Turn an InputError into one message on stderr and exit status 1, without a traceback.

    An OSError, such as a full disk or a folder that is a file, is the user's to fix as well, and
    so is a lack of memory. Ctrl-C ends with one word and status 130, and SIGTERM with 143, after
    what is half done has been removed. A reader that has left, as of `| head -1`, ends it without
    a word and with 141, as a shell does.

    Args:
        reword: what is done to an InputError's message, as to put options for parameters.
    """
    atexit.register(_drop_closed_stdout)  # for what is printed after the block
    try:
        with _terminating_in_order():
            yield
        if _drop_closed_stdout():
            raise SystemExit(141)
    except KeyboardInterrupt as e:
        terminated = isinstance(e, Terminated)
        print("terminated" if terminated else "interrupted", file=sys.stderr)
        raise SystemExit(143 if terminated else 130) from None
    except Exception as e:
        # An unbuffered stdout keeps nothing that would fail once more.
        unbuffered = getattr(sys.stdout, "write_through", False)
        if isinstance(e, BrokenPipeError) and (_drop_closed_stdout() or unbuffered):
            raise SystemExit(141) from None
        if isinstance(e, OSError):
            message = describe_os_error(e)
        elif isinstance(e, InputError):
            message = reword(message_of(e))
        elif is_out_of_memory(e):
            message = f"not enough memory: use smaller images or batches ({e!r})"
        else:
            raise
        show_error(message)
        raise SystemExit(1) from None


@contextmanager
def _terminating_in_order() -> Iterator[None]:
    """Raise Terminated within the block at SIGTERM; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show_error(message: str) -> None:
    """Print one message on stderr."""
    # Further lines are set in, so that no name with a newline looks like a message of its own.
    print("error:", printable(message).replace("\n", "\n  "), file=sys.stderr)


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
