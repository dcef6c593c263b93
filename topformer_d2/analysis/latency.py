"""Timing calls against each other on a machine that does other things too."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np


def keep_freed_memory() -> None:
    """Let glibc keep what is freed; elsewhere this does nothing.

    Whether it gives the activations' memory back after each call, and faults it in again in the
    next, is up to the layout of the heap: a network takes 1.4 times as long in some processes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(parameter, 1 << 30)


def time_alternately(calls: Sequence[Callable[[], object]], repetitions: int) -> np.ndarray:
    """(repetitions, calls) milliseconds; in each repetition all are called once, in turn.

    So what else the machine does falls on all alike: compare the calls within a repetition.
    """
    times = np.zeros((repetitions + 1, len(calls)))
    for repetition in times:
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            repetition[i] = 1e3 * (time.perf_counter() - start)
    return times[1:]  # the first is a warm-up
