"""The recipes' augmentation: geometry and colour on uint8 images through OpenCV.

What is beyond the recipes is in `augmentations/`; both are put together here from a config.

Images are resized by OpenCV's bilinear interpolation without antialiasing, as the official models
were trained and tested; Detectron2's own resizing (Pillow) antialiases.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
)

from ..config import check_values, complete_config
from .augmentations.build import build_pixel_augmentation, build_warp_and_crop


class ResizeTransform(Transform):
    """Resize to (new_h, new_w): images bilinearly, labels by nearest neighbour."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int = cv2.INTER_LINEAR) -> np.ndarray:
        """(h, w[, C]) uint8 or float32 to (new_h, new_w[, C])."""
        assert img.shape[:2] == (self.h, self.w), (img.shape, self.h, self.w)
        return cv2.resize(np.ascontiguousarray(img), (self.new_w, self.new_h), interpolation=interp)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, cv2.INTER_NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        coords[:, 0] *= self.new_w / self.w
        coords[:, 1] *= self.new_h / self.h
        return coords

    def inverse(self) -> Transform:
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w)


def fit_within(h: int, w: int, short: int, long: int) -> tuple[int, int]:
    """The largest (height, width) of aspect h:w within `long` by `short`, in either orientation."""
    scale = min(long / max(h, w), short / min(h, w))
    return max(1, int(h * scale + 0.5)), max(1, int(w * scale + 0.5))


class ResizeByRatio(T.Augmentation):
    """Fit the image within (short r, long r), keeping its shape, with r from `ratio_range`."""

    def __init__(self, short: int, long: int, ratio_range: tuple[float, float] = (1.0, 1.0)):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        ratio = np.random.uniform(*self.ratio_range)
        h, w = image.shape[:2]
        return ResizeTransform(
            h, w, *fit_within(h, w, int(self.short * ratio), int(self.long * ratio))
        )


class FitForTest(T.Augmentation):
    """Fit the image within (short, long), then stretch each side up to a multiple of `divisor`.

    With short = 0 the image keeps its size before the stretching, as in Detectron2.
    """

    def __init__(self, short: int, long: int, divisor: int = 1):
        super().__init__()
        self._init(locals())

    def sizes(self, h: int, w: int) -> list[tuple[int, int]]:
        """(height, width) of an image of (h, w) after each resize."""
        fit_h, fit_w = fit_within(h, w, self.short, self.long) if self.short else (h, w)
        # Two resizes and not one of the whole way, as the official protocol has it.
        new_h = -(-fit_h // self.divisor) * self.divisor
        new_w = -(-fit_w // self.divisor) * self.divisor
        return list(dict.fromkeys([(fit_h, fit_w), (new_h, new_w)]))

    def get_transform(self, image: np.ndarray) -> Transform:
        sizes = [image.shape[:2], *self.sizes(*image.shape[:2])]
        resizes = [ResizeTransform(*before, *after) for before, after in pairwise(sizes)]
        return resizes[0] if len(resizes) == 1 else TransformList(resizes)


class CategoryCrop(T.RandomCrop_CategoryAreaConstraint):
    """A crop that is drawn again while one class covers most of it, as Detectron2's but faster.

    An image without pixel labels is cropped once.
    """

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> Transform:
        """`sem_seg` is (H, W) uint8; draws and result are those of the class above."""
        if sem_seg is None:
            return self.crop_aug.get_transform(image)
        h, w = sem_seg.shape
        for _ in range(10):
            crop_h, crop_w = self.crop_aug.get_crop_size((h, w))
            y, x = np.random.randint(h - crop_h + 1), np.random.randint(w - crop_w + 1)
            crop = sem_seg[y : y + crop_h, x : x + crop_w]
            counts = cv2.calcHist([crop], [0], None, [256], [0, 256]).reshape(-1)
            if 0 <= self.ignored_category < len(counts):
                counts[self.ignored_category] = 0
            limit = counts.sum() * self.single_category_max_area
            if np.count_nonzero(counts) > 1 and counts.max() < limit:
                break
        return CropTransform(x, y, crop_w, crop_h)


class HorizontalFlip(HFlipTransform):
    """A horizontal flip by OpenCV: a NumPy view with negative strides would slow later steps."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W[, C]) uint8 or float32 to the same."""
        return cv2.flip(img, 1)


class RandomFlip(T.RandomFlip):
    """Detectron2's, with HorizontalFlip."""

    def get_transform(self, image: np.ndarray) -> Transform:
        flip = super().get_transform(image)
        return HorizontalFlip(flip.width) if isinstance(flip, HFlipTransform) else flip


class ColorTransform(Transform):
    """Apply colour steps in order; labels and coordinates stay as they are.

    A step is (name, value): "linear" with (contrast factor, brightness offset), "saturation" with
    a factor, "hue" with an offset in OpenCV's 8-bit unit of 2 degrees. Each rounds down to uint8.
    """

    def __init__(self, steps: Sequence[tuple], image_format: str = "RGB"):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to the same."""
        values = np.arange(256)
        to_hsv, from_hsv = (
            (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB)
            if self.image_format == "RGB"
            else (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR)
        )
        for name, value in self.steps:
            if name == "linear":
                table = (values * value[0] + value[1]).clip(0, 255).astype(np.uint8)
                img = cv2.LUT(img, table)
                continue
            tables = [values, values, values]
            if name == "saturation":
                tables[1] = (values * value).clip(0, 255)
            else:
                tables[0] = (values + value) % 180
            table = np.stack(tables, axis=-1).astype(np.uint8)[None]
            img = cv2.cvtColor(cv2.LUT(cv2.cvtColor(img, to_hsv), table), from_hsv)
        return img

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def inverse(self) -> Transform:
        return NoOpTransform()


class PhotometricDistortion(T.Augmentation):
    """SSD's colour augmentation with the official recipe's ranges.

    Brightness +-32, contrast and saturation 0.5 to 1.5, hue -18 to 17 (units of 2 degrees), each
    with probability 0.5; the contrast before or after saturation and hue, at random. PointRend's
    ColorAugSSDTransform draws inside the transform, so it cannot be repeated, and its hue reaches
    18.
    """

    def __init__(self, image_format: str = "RGB"):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        def maybe(*step: Any) -> Any:
            return [step] if np.random.randint(2) else []

        contrast = maybe("linear", (np.random.uniform(0.5, 1.5), 0.0))
        steps = maybe("linear", (1.0, np.random.uniform(-32, 32)))
        contrast_first = np.random.randint(2)
        steps += contrast if contrast_first else []
        steps += maybe("saturation", np.random.uniform(0.5, 1.5))
        steps += maybe("hue", np.random.randint(-18, 18))
        steps += [] if contrast_first else contrast
        return ColorTransform(steps, self.image_format)


def build_train_augmentation(cfg: CfgNode) -> list[T.Augmentation]:
    """The augmentation of one image from INPUT, in its order; what is off is not in the list.

    Resize, warp, crop, flip, colour, blur, noise, JPEG, cut-out.

    Raises:
        InputError: a value of the config is out of its range.
    """
    return [*build_geometry(cfg), *build_appearance(cfg)]


def build_geometry(cfg: CfgNode) -> list[T.Augmentation]:
    """The first steps of build_train_augmentation, which move things: resize to flip."""
    cfg = complete_config(cfg)
    check_values(cfg)  # again, for programs change what load_config gave
    augmentations: list[T.Augmentation] = []
    if len(cfg.INPUT.SCALE_RANGE):
        augmentations.append(
            ResizeByRatio(
                cfg.INPUT.MIN_SIZE_TRAIN[0], cfg.INPUT.MAX_SIZE_TRAIN, tuple(cfg.INPUT.SCALE_RANGE)
            )
        )
    crop, chosen = cfg.INPUT.CROP, None
    if crop.ENABLED and crop.SINGLE_CATEGORY_MAX_AREA < 1.0:
        ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        chosen = CategoryCrop(crop.TYPE, crop.SIZE, crop.SINGLE_CATEGORY_MAX_AREA, ignored)
    elif crop.ENABLED:
        chosen = T.RandomCrop(crop.TYPE, crop.SIZE)
    augmentations += build_warp_and_crop(cfg, chosen)
    if cfg.INPUT.RANDOM_FLIP != "none":
        augmentations.append(
            RandomFlip(
                horizontal=cfg.INPUT.RANDOM_FLIP == "horizontal",
                vertical=cfg.INPUT.RANDOM_FLIP == "vertical",
            )
        )
    return augmentations


def build_appearance(cfg: CfgNode) -> list[T.Augmentation]:
    """The other steps of build_train_augmentation, which move nothing: colour to cut-out."""
    cfg = complete_config(cfg)
    colour = [PhotometricDistortion(cfg.INPUT.FORMAT)] if cfg.INPUT.COLOR_AUG_SSD else []
    return [*colour, *build_pixel_augmentation(cfg)]


def build_test_augmentation(cfg: CfgNode) -> T.Augmentation:
    """The protocol's resizing of a test image from INPUT.{MIN,MAX}_SIZE_TEST."""
    keys = complete_config(cfg).INPUT
    return FitForTest(keys.MIN_SIZE_TEST, keys.MAX_SIZE_TEST, keys.TEST_SIZE_DIVISOR)
