"""Fair timing of several calls on a machine that is not idle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..modeling import adapt


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
