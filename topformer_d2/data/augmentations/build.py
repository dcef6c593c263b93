"""The augmentations beyond the recipes, as a config has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ...config import complete_config, model_tasks
from ...tasks import BOXES, PIXELS
from .cutout import CutOut
from .mixing import Mixing
from .pixels import Blur, JPEGCompression, Noise
from .warp import Warp


def build_warp(cfg: CfgNode) -> list[T.Augmentation]:
    """INPUT.WARP, or nothing where it is off."""
    keys = cfg.INPUT.WARP
    warp = Warp(
        rotation=keys.ROTATION,
        scale=tuple(keys.SCALE),
        shear=keys.SHEAR,
        translation=keys.TRANSLATION,
        perspective=keys.PERSPECTIVE,
        **_unseen_parts(cfg),
    )
    return _with_probability([(keys.PROB, warp)])


def build_pixel_augmentation(cfg: CfgNode) -> list[T.Augmentation]:
    """Blur, noise, JPEG and cut-out, which leave things where they are; less those that are off."""
    keys = cfg.INPUT
    holes = CutOut(keys.CUTOUT.MAX_HOLES, tuple(keys.CUTOUT.SIZE), **_unseen_parts(cfg))
    return _with_probability(
        [
            (keys.BLUR.PROB, Blur(tuple(keys.BLUR.SIGMA))),
            (keys.NOISE.PROB, Noise(tuple(keys.NOISE.SIGMA))),
            (keys.JPEG.PROB, JPEGCompression(tuple(keys.JPEG.QUALITY), keys.FORMAT)),
            (keys.CUTOUT.PROB, holes),
        ]
    )


def build_mixing(cfg: CfgNode) -> Mixing | None:
    """INPUT.MOSAIC and INPUT.COPY_PASTE, or None where both are off.

    With both tasks a box's class has the pixel label of the same name, by the config's class names.
    """
    cfg = complete_config(cfg)
    mosaic, paste = cfg.INPUT.MOSAIC.PROB, cfg.INPUT.COPY_PASTE.PROB
    if not mosaic and not paste:
        return None
    labels: list[int] = []
    if {PIXELS.name, BOXES.name} <= set(model_tasks(cfg)):
        pixel_classes = list(cfg.DATASETS[PIXELS.classes_key])
        labels = [
            pixel_classes.index(name) if name in pixel_classes else -1
            for name in cfg.DATASETS[BOXES.classes_key]
        ]
    return Mixing(
        mosaic_prob=mosaic, copy_paste_prob=paste, object_labels=labels, **_unseen_parts(cfg)
    )


def _with_probability(choices: list[tuple[float, T.Augmentation]]) -> list[T.Augmentation]:
    # What is off must not be there: it would draw a number, and change the samples of a recipe.
    return [T.RandomApply(augmentation, prob) for prob, augmentation in choices if prob]


def _unseen_parts(cfg: CfgNode) -> dict[str, Any]:
    """What stands where nothing of an image is, and the share of a box that must be seen."""
    # The network's input is 0 there, as where images are padded.
    fill = np.rint(cfg.MODEL.PIXEL_MEAN).clip(0, 255).astype(int).tolist()
    return {
        "fill": fill,
        "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        "min_visible": cfg.INPUT.MIN_VISIBLE,
    }
