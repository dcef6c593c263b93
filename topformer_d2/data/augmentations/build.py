"""The augmentations beyond the recipes, as a config has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T

from ...config import complete_config, model_tasks
from ...errors import printable, shortened
from ...logs import get_logger
from ...tasks import BOXES, PIXELS, Task
from .crop import BalancedCrop
from .cutout import CutOut
from .mixing import Mixing
from .pixels import Blur, JPEGCompression, Noise
from .warp import Warp, WarpedCrop

logger = get_logger(__name__)


def build_warp_and_crop(cfg: CfgNode, crop: T.Augmentation | None) -> list[T.Augmentation]:
    """INPUT.WARP and INPUT.CROP, less what is off.

    Args:
        cfg: a config with the toolkit's keys.
        crop: INPUT.CROP without CLASS_BALANCED_PROB; None = it is off.
    """
    keys, ignored = cfg.INPUT.CROP, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    if crop is not None and keys.CLASS_BALANCED_PROB:
        crop = BalancedCrop(crop, keys.TYPE, keys.SIZE, keys.CLASS_BALANCED_PROB, ignored)
    warp = _build_warp(cfg)
    if not cfg.INPUT.WARP.PROB:
        return [crop] if crop is not None else []
    if crop is None:
        return [T.RandomApply(warp, cfg.INPUT.WARP.PROB)]
    return [WarpedCrop(warp, crop, cfg.INPUT.WARP.PROB)]


def _build_warp(cfg: CfgNode) -> Warp:
    keys = cfg.INPUT.WARP
    return Warp(
        rotation=keys.ROTATION,
        scale=tuple(keys.SCALE),
        shear=keys.SHEAR,
        translation=keys.TRANSLATION,
        perspective=keys.PERSPECTIVE,
        **_unseen_parts(cfg),
    )


def build_pixel_augmentation(cfg: CfgNode) -> list[T.Augmentation]:
    """Blur, noise, JPEG and cut-out, which leave things where they are; less those that are off."""
    keys = cfg.INPUT
    holes = CutOut(keys.CUTOUT.MAX_HOLES, tuple(keys.CUTOUT.SIZE), **_unseen_parts(cfg))
    choices = (
        (keys.BLUR.PROB, Blur(tuple(keys.BLUR.SIGMA))),
        (keys.NOISE.PROB, Noise(tuple(keys.NOISE.SIGMA))),
        (keys.JPEG.PROB, JPEGCompression(tuple(keys.JPEG.QUALITY), keys.FORMAT)),
        (keys.CUTOUT.PROB, holes),
    )
    # What is off must not be there: it would draw a number, and change the samples of a recipe.
    return [T.RandomApply(augmentation, prob) for prob, augmentation in choices if prob]


def build_mixing(cfg: CfgNode) -> Mixing | None:
    """INPUT.MOSAIC and INPUT.COPY_PASTE, or None where both are off.

    With both tasks a box's class has the pixel label of the same name, by the class names of the
    config, or else of the datasets; a warning names the classes that have none.
    """
    cfg = complete_config(cfg)
    mosaic, paste = cfg.INPUT.MOSAIC.PROB, cfg.INPUT.COPY_PASTE.PROB
    if not mosaic and not paste:
        return None
    labels: list[int] = []
    if paste and {PIXELS.name, BOXES.name} <= set(model_tasks(cfg)):
        pixels, objects = _class_names(cfg, PIXELS), _class_names(cfg, BOXES)
        labels = [pixels.index(name) if name in pixels else -1 for name in objects]
        without = [name for name in objects if name not in pixels]
        if without or not objects:
            what = shortened(without) if objects else "all classes, whose names are not known"
            logger.warning(
                "INPUT.COPY_PASTE pastes whole boxes of %s where their labels have no outlines: no "
                "class of the pixels has their names",
                printable(what),
            )
    return Mixing(
        mosaic_prob=mosaic, copy_paste_prob=paste, object_labels=labels, **_unseen_parts(cfg)
    )


def _class_names(cfg: CfgNode, task: Task) -> list[str]:
    found = list(cfg.DATASETS[task.classes_key])
    for name in cfg.DATASETS.TRAIN if not found else ():
        found = found or list(MetadataCatalog.get(name).get(task.classes_field) or [])
    return found


def _unseen_parts(cfg: CfgNode) -> dict[str, Any]:
    """What stands where nothing of an image is, and the share of a box that must be seen."""
    # The network's input is 0 there, as where images are padded.
    fill = np.rint(cfg.MODEL.PIXEL_MEAN).clip(0, 255).astype(int).tolist()
    return {
        "fill": fill,
        "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        "min_visible": cfg.INPUT.MIN_VISIBLE,
    }
