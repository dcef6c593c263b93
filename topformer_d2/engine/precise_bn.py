"""Detectron2's PreciseBN with the same batches each time."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

from detectron2.engine.hooks import PreciseBN
from torch import nn

from ..data.loader import TrainLoader
from ..errors import InputError


class FirstBatches:
    """The first batches of the training stream, over and over, loaded in this process.

    So the statistics depend on the weights alone, and a resumed run's are the same.
    """

    def __init__(self, loader: TrainLoader, count: int):
        self._loader = loader
        self._count = count

    def __iter__(self) -> Iterator[list[dict]]:
        loader = copy.copy(self._loader)  # the records are shared; the seed is a resumed run's
        loader.num_workers = 0
        loader.start_iter = 0
        while True:
            yield from itertools.islice(loader, self._count)


def build_precise_bn(cfg, model: nn.Module, loader: TrainLoader) -> PreciseBN:
    """Detectron2's hook for `model`, which it expects in training mode, before each evaluation.

    Raises:
        InputError: TEST.PRECISE_BN.NUM_ITER is less than 1.
    """
    count = cfg.TEST.PRECISE_BN.NUM_ITER
    if count < 1:
        raise InputError(f"TEST.PRECISE_BN.NUM_ITER is {count}; it takes 1 or more")
    return PreciseBN(cfg.TEST.EVAL_PERIOD, model, FirstBatches(loader, count), count)
