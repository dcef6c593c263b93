"""A number of threads for a stretch of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Within it PyTorch's CPU operators and OpenCV use `number` threads; None = as they are set."""
    if number is None:
        yield
        return
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(number)
    cv2.setNumThreads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
