"""Reading many small files in several processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from tqdm.auto import tqdm

from ...errors import InputError
from .contract import Problem

T = TypeVar("T")

# Starting a process takes as long as reading some hundred small files.
_FILES_A_PROCESS = 500
_CHUNK = 100


def parse_files(
    parse: Callable[[str], T], files: Sequence[str], kind: str = "malformed annotation"
) -> tuple[list[T], list[Problem]]:
    """parse(file) of each file, in their order, and what is wrong with those that it refuses.

    Args:
        parse: a function of a module, or a functools.partial of one; InputError where a file is
            not what it takes.
        files: to be read; a progress bar is shown where there are many.
        kind: of the problems, a key of inspection.SEVERITY.
    """
    parsed: list[T] = []
    problems = []
    for file, (value, message) in zip(files, _map(_Guarded(parse), files), strict=True):
        if message is not None:
            problems.append(Problem(kind, file, message))
        else:
            parsed.append(value)
    return parsed, problems


class _Guarded(Generic[T]):
    """A parser that returns its InputError's message beside None."""

    def __init__(self, parse: Callable[[str], T]):
        self._parse = parse

    def __call__(self, file: str) -> tuple[T | None, str | None]:
        try:
            return self._parse(file), None
        except InputError as e:
            return None, str(e)


def _map(function: Callable[[str], T], files: Sequence[str]) -> Iterable[T]:
    count = min(os.cpu_count() or 1, len(files) // _FILES_A_PROCESS)
    # Forked processes have the libraries already; to import them takes seconds.
    if count < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, files)
        return
    chunks = [files[i : i + _CHUNK] for i in range(0, len(files), _CHUNK)]
    context = multiprocessing.get_context("fork")
    with (
        tqdm(total=len(files), desc="reading labels", unit="file") as bar,
        context.Pool(count, initializer=_ignore_ctrl_c) as pool,
    ):
        for part in pool.imap(_Chunked(function), chunks):
            bar.update(len(part))
            yield from part


class _Chunked(Generic[T]):
    def __init__(self, function: Callable[[str], T]):
        self._function = function

    def __call__(self, files: Sequence[str]) -> list[T]:
        return list(map(self._function, files))


def _ignore_ctrl_c() -> None:
    """The process that started them ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
