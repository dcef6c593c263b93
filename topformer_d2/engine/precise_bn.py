"""Detectron2's PreciseBN with the same batches each time."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.engine import hooks as detectron2_hooks
from fvcore.nn.precise_bn import get_bn_modules
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


class PreciseBN(detectron2_hooks.PreciseBN):
    """Detectron2's, which changes nothing but BatchNorm's statistics.

    Its passes are in training mode, in which RetinaNet also moves its running mean of foreground
    anchors, by which it divides its losses.
    """

    def update_stats(self) -> None:
        kept = getattr(self._model, "loss_normalizer", None)
        super().update_stats()
        if kept is not None:
            self._model.loss_normalizer = kept


def build_precise_bn(cfg: CfgNode, model: nn.Module, loader: TrainLoader) -> PreciseBN:
    """The hook for `model`, which it expects in training mode, before each evaluation.

    Args:
        model: not wrapped in DistributedDataParallel.

    Raises:
        InputError: TEST.PRECISE_BN.NUM_ITER is less than 1, or the model has no BatchNorm that
            trains.
    """
    count = cfg.TEST.PRECISE_BN.NUM_ITER
    if count < 1:
        raise InputError(f"TEST.PRECISE_BN.NUM_ITER is {count}; it takes 1 or more")
    if not get_bn_modules(model):
        raise InputError(
            "TEST.PRECISE_BN.ENABLED is True, but the model has no BatchNorm that is trained: set "
            "it to False, or its norms (such as MODEL.TOPFORMER.NORM) to SyncBN; a BatchNorm that "
            "MODEL.FREEZE names is not trained either"
        )
    return PreciseBN(cfg.TEST.EVAL_PERIOD, model, FirstBatches(loader, count), count)
