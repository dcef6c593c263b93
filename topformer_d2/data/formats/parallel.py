"""Reading many small files in several processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from tqdm.auto import tqdm

from ...errors import InputError
from .contract import Problem

S = TypeVar("S")
T = TypeVar("T")

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
    for file, (value, message) in zip(
        files, map_in_processes(_Guarded(parse), files, "reading labels"), strict=True
    ):
        if message is not None:
            problems.append(Problem(kind, file, message))
        else:
            parsed.append(value)
    return parsed, problems


def parse_some(parse: Callable[[str], T], files: Sequence[str]) -> tuple[list[T], list[Problem]]:
    """parse_files; InputError where none of the files can be used."""
    parsed, problems = parse_files(parse, files)
    if not parsed:
        raise InputError(f"none of the {len(files)} files can be used: {problems[0].message}")
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


def map_in_processes(
    function: Callable[[S], T], items: Sequence[S], description: str, *, least: int = 500
) -> Iterator[T]:
    """function(item) of each item, in their order; of many in several processes, with a bar.

    Args:
        function: of a module, or an object that can be pickled; it raises nothing that is to be
            caught.
        items: that can be pickled, as what the function returns.
        description: for the progress bar.
        least: items for which a process is worth its start, which takes as long as reading some
            hundred small files.

    Raises:
        InputError: a process was killed.
    """
    count = min(os.cpu_count() or 1, len(items) // least)
    # Forked processes have the libraries already; to import them takes seconds.
    if count < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, items)
        return
    chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]
    context = multiprocessing.get_context("fork")
    # Not a multiprocessing.Pool, which waits for ever for the work of a process that was killed.
    pool = ProcessPoolExecutor(count, context, _start, (function,))
    try:
        with tqdm(total=len(items), desc=description, unit="file") as bar:
            for part in pool.map(_run, chunks):
                bar.update(len(part))
                yield from part
    except BrokenProcessPool as e:
        raise InputError(
            f"{description}: one of {count} processes was killed, perhaps because the memory is "
            "full: close other programs, or start again on a machine with more memory"
        ) from e
    finally:
        pool.shutdown(cancel_futures=True)


# What a process of map_in_processes does; sent once, for it may hold large tables.
_function: Callable[[Any], Any]


def _start(function: Callable[[Any], Any]) -> None:
    """First step of a process: the one that started it handles Ctrl-C and ends it."""
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function = function


def _end_with_parent() -> None:
    """End this process where the one that started it was killed, and can end nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(items: Sequence[Any]) -> list[Any]:
    return list(map(_function, items))
