"""A context that sets the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


class _OfThread(threading.local):
    depth = 0  # stretches that this thread is in


_of_thread = _OfThread()
_lock = threading.Lock()
_stretches = 0  # that all threads are in
_before = (1, 1)  # the first of them: what was set


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """A context in which PyTorch (CPU) and OpenCV use `number` threads; None = no change.

    Several threads may be in it at once, and all is as before when the last one leaves it. PyTorch
    keeps a number for each thread, OpenCV one for all: the one set last.
    """
    global _stretches, _before
    if number is None:
        yield
        return
    with _lock:
        before = torch.get_num_threads(), cv2.getNumThreads()
        if _stretches == 0:
            _before = before
        elif _of_thread.depth == 0:
            before = _before  # a new thread begins with what another has set for its stretch
        _stretches += 1
        _of_thread.depth += 1
        torch.set_num_threads(number)
        cv2.setNumThreads(number)
    try:
        yield
    finally:
        with _lock:
            _stretches -= 1
            _of_thread.depth -= 1
            torch.set_num_threads(before[0])
            if _stretches == 0 or _of_thread.depth:
                cv2.setNumThreads(before[1])
