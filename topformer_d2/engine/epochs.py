"""The length of a training in epochs (SOLVER.EPOCHS)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode

from ..config import schedule_name
from ..errors import InputError
from ..logs import get_logger

logger = get_logger(__name__)


def epochs_to_iterations(cfg: CfgNode, loader: Iterable) -> CfgNode:
    """A frozen copy of the config whose MAX_ITER is SOLVER.EPOCHS of a loader's images.

    An epoch has as many images as DATASETS.TRAIN has to train on, whatever their weights. The last
    iteration may go beyond it. SOLVER.WARMUP_ITERS and STEPS keep their share of MAX_ITER, and
    periods stay as they are. The log has what it changed.

    Args:
        cfg: complete; SOLVER.EPOCHS is above 0, and IMS_PER_BATCH is that of all processes.
        loader: TrainLoader of `cfg`.

    Raises:
        InputError: `loader` is another one, which does not tell its images.
    """
    solver = cfg.SOLVER
    records = getattr(loader, "records", None)
    if records is None:
        raise InputError(
            f"SOLVER.EPOCHS is {solver.EPOCHS}, but the {type(loader).__name__} of this trainer "
            "does not have its images as `records`: set SOLVER.EPOCHS to 0, and SOLVER.MAX_ITER"
        )
    iterations = math.ceil(solver.EPOCHS * len(records) / solver.IMS_PER_BATCH)
    share = iterations / solver.MAX_ITER
    new: dict[str, Any] = {
        "MAX_ITER": iterations,
        "WARMUP_ITERS": round(solver.WARMUP_ITERS * share),
    }
    if schedule_name(cfg) == "WarmupMultiStepLR":
        steps = dict.fromkeys(round(step * share) for step in solver.STEPS)
        new["STEPS"] = tuple(step for step in steps if 0 < step < iterations)
    changed = ", ".join(f"SOLVER.{key} {solver[key]} -> {new[key]}" for key in new)
    logger.info(
        "SOLVER.EPOCHS is %d, of %d training images in batches of %d: %s",
        *(solver.EPOCHS, len(records), solver.IMS_PER_BATCH, changed),
    )
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in new.items():
        cfg.SOLVER[key] = value
    cfg.freeze()
    return cfg
