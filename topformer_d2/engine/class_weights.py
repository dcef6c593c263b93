"""Weights of the classes that a training's loss takes from the training data."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..checkpoint import training_checkpoints
from ..config import model_tasks, read_config
from ..data import class_weights, count_training_pixels
from ..errors import InputError
from ..files import is_remote
from ..logs import get_logger
from ..tasks import PIXELS

logger = get_logger(__name__)


def fill_class_weights(cfg: CfgNode, *, resume: bool = False) -> bool:
    """Write MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS, where they are to be computed, into the config.

    All processes of a run call it together; one of them counts.

    Args:
        cfg: complete; a frozen one stays frozen.
        resume: take those of OUTPUT_DIR/config.yaml, where a run with the same keys left it
            and a checkpoint.

    Returns:
        Whether it was; False where there is nothing to compute, or weights are given.

    Raises:
        InputError: a label map cannot be counted.
    """
    keys = cfg.MODEL.SEM_SEG_LOSS
    if not keys.CLASS_WEIGHTS_FROM or keys.CLASS_WEIGHTS or PIXELS.name not in model_tasks(cfg):
        return False
    weights: list[float] = []
    if comm.is_main_process():
        weights = _earlier(cfg) if resume else []
        if not weights:
            weights = class_weights(keys.CLASS_WEIGHTS_FROM, count_training_pixels(cfg))
    weights = comm.all_gather(weights)[0]
    was_frozen = cfg.is_frozen()
    cfg.defrost()
    keys.CLASS_WEIGHTS = weights
    if was_frozen:
        cfg.freeze()
    return True


def log_class_weights(cfg: CfgNode, computed: bool) -> None:
    """Say in the log which weights were computed, as fill_class_weights says, or given."""
    keys = cfg.MODEL.SEM_SEG_LOSS
    if not keys.CLASS_WEIGHTS_FROM or not keys.CLASS_WEIGHTS:
        return
    names = list(cfg.DATASETS[PIXELS.classes_key])
    names += [f"class {i}" for i in range(len(names), len(keys.CLASS_WEIGHTS))]
    shown = ", ".join(f"{n} {w:.3g}" for n, w in zip(names, keys.CLASS_WEIGHTS, strict=False))
    if computed:
        logger.info("Weights of the classes by %s: %s", keys.CLASS_WEIGHTS_FROM, shown)
    else:  # perhaps by another formula, or of other data
        logger.info(
            "Weights of the classes as MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS has them: %s. "
            "CLASS_WEIGHTS_FROM %s is computed where that is []",
            *(shown, keys.CLASS_WEIGHTS_FROM),
        )


def with_class_weights(cfg: CfgNode) -> CfgNode:
    """The config itself, or a copy with what fill_class_weights writes."""
    keys = cfg.MODEL.SEM_SEG_LOSS
    if not keys.CLASS_WEIGHTS_FROM or keys.CLASS_WEIGHTS:
        return cfg
    cfg = cfg.clone()
    log_class_weights(cfg, fill_class_weights(cfg))
    return cfg


def _earlier(cfg: CfgNode) -> list[float]:
    """The weights that the run in OUTPUT_DIR began with; empty where it has none that fit."""
    path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    # Without a checkpoint nothing is resumed: the labels may have been changed since.
    if is_remote(path) or not os.path.isfile(path) or not training_checkpoints(cfg.OUTPUT_DIR):
        return []
    try:
        keys = read_config(path)["MODEL"]["SEM_SEG_LOSS"]
        kind, weights = keys["CLASS_WEIGHTS_FROM"], keys["CLASS_WEIGHTS"]
        fits = len(weights) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if kind != cfg.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM or not fits:
            return []
        return [float(weight) for weight in weights]
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return []
