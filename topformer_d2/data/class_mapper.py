"""From a record of an image and its class to what a classifier takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from torchvision.transforms import v2

from ..errors import InputError
from ..tasks import IMAGES
from .images import read_image


class ClassMapper:
    """Reads an image and transforms it by torchvision.transforms.v2."""

    @configurable
    def __init__(
        self, is_train: bool, *, transform: Callable, image_format: str, num_classes: int = 0
    ):
        """
        Args:
            is_train: training samples carry the class; test samples are the image alone.
            transform: from an image (3, H, W) uint8 to such a one.
            image_format: "RGB" or "BGR".
            num_classes: classes of training samples are below it.
        """
        self.is_train = is_train
        self.transform = transform
        self.image_format = image_format
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        return {
            "is_train": is_train,
            "transform": build_class_transform(cfg, is_train=is_train),
            "image_format": cfg.INPUT.FORMAT,
            "num_classes": cfg.MODEL.CLS_HEAD.NUM_CLASSES,
        }

    def __call__(self, record: dict) -> dict:
        """The record with "image" (3, H, W) uint8 and, in training, "cls", the class's index.

        What is random follows from NumPy's global generator; PyTorch's is left as it was.

        Raises:
            InputError: the image cannot be read, or its class is out of range.
        """
        sample = dict(record)
        index = sample.pop(IMAGES.record_key)
        if self.is_train:
            if not 0 <= index < self.num_classes:
                raise InputError(
                    f"{record['file_name']} has class {index}, and MODEL.CLS_HEAD.NUM_CLASSES is "
                    f"{self.num_classes}"
                )
            sample[IMAGES.name] = index
        pixels = read_image(record["file_name"], self.image_format)
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy(order="C"))
        # The transforms draw from PyTorch's generator of the CPU, from which the model draws too.
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(int(np.random.randint(2**31)))
            sample["image"] = self.transform(image)
        return sample


def build_class_transform(cfg: CfgNode, *, is_train: bool) -> v2.Transform:
    """INPUT.CLS and RANDOM_FLIP as transforms of (3, H, W) uint8, by torchvision.

    Images are resized bicubically, as in PaddleViT's recipe for TopFormer.

    Args:
        cfg: a config with the toolkit's keys.
        is_train: with what is random; else the middle of the resized image.
    """
    keys, fill = cfg.INPUT.CLS, [round(mean) for mean in cfg.MODEL.PIXEL_MEAN]
    resizing: dict[str, Any] = {
        "interpolation": v2.InterpolationMode.BICUBIC,
        "antialias": True,
    }
    steps: list[v2.Transform]
    if not is_train:
        short = max(cfg.INPUT.MIN_SIZE_TEST, keys.SIZE)
        steps = [v2.Resize(short, **resizing), v2.CenterCrop(keys.SIZE)]
        return v2.Compose(steps)
    crop = v2.RandomResizedCrop(keys.SIZE, scale=tuple(keys.AREA), **resizing)
    flips = {"horizontal": v2.RandomHorizontalFlip, "vertical": v2.RandomVerticalFlip}
    steps = [crop]
    if cfg.INPUT.RANDOM_FLIP in flips:
        steps.append(flips[cfg.INPUT.RANDOM_FLIP]())
    if keys.RAND_AUGMENT_OPS:
        augment = v2.RandAugment(keys.RAND_AUGMENT_OPS, keys.RAND_AUGMENT_MAGNITUDE, fill=fill)
        steps.append(augment)
    if keys.ERASING_PROB:
        # Not torchvision's value="random": its noise is for normalised images, and in uint8 it is
        # black and white.
        steps.append(v2.RandomErasing(keys.ERASING_PROB, value=fill))
    return v2.Compose(steps)
