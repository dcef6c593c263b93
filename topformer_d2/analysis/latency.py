"""Fair timing of several calls on a machine that is not idle."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..modeling import adapt


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next call; without glibc this does nothing.

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


@torch.no_grad()
def shift_scores(model: nn.Module, image: Tensor, candidates: int) -> None:
    """Make an untrained detector find something, for decoding and NMS cost nothing otherwise.

    Args:
        model: a RetinaNet, or a TopFormerMultiTask; its classifier is changed.
        image: (3, H, W) in 0..255, of whose scores `candidates` pass the threshold afterwards.
    """
    nn.init.normal_(model.head.cls_score.weight, std=1.0)
    images = model.preprocess_image([{"image": image}]).tensor
    logits = adapt(model).network(images).class_logits
    highest = torch.cat([x.reshape(-1) for x in logits]).sort(descending=True).values[:candidates]
    threshold = model.test_score_thresh
    model.head.cls_score.bias += math.log(threshold / (1 - threshold)) - highest[-1]
