"""Crops in which rare classes come more often."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, Transform

from .visible import cut_boxes


class BalancedCrop(T.Augmentation):
    """With some probability a crop around something of a class, drawn evenly from the image's.

    Drawn by its pixels or objects a class comes as often as it is large or frequent; here each
    class of an image is as likely as any other. Of the labels it is one of the class's pixels that
    the crop has somewhere inside, of the boxes a whole box, where it is smaller than the crop. An
    image without labels is cropped by the other crop.
    """

    def __init__(
        self,
        other: T.Augmentation,
        crop_type: str,
        crop_size: tuple,
        prob: float,
        ignored_category: int = 255,
    ):
        """
        Args:
            other: the crop that is used otherwise.
            crop_type, crop_size: as Detectron2's RandomCrop has them.
            prob: probability of a balanced crop.
            ignored_category: the label that is no class.
        """
        super().__init__()
        self._init(locals())
        self.crop_aug = T.RandomCrop(crop_type, crop_size)

    def __call__(self, aug_input: Any) -> Transform:
        """Crop `aug_input`; of its attributes, sem_seg, boxes and classes need not be there."""
        if self._rand_range() >= self.prob:
            return self.other(aug_input)
        sem_seg, boxes, classes = (
            getattr(aug_input, name, None) for name in ("sem_seg", "boxes", "classes")
        )
        target = self._draw_target(aug_input.image.shape[:2], sem_seg, boxes, classes)
        if target is None:
            return self.other(aug_input)
        transform = self.around(aug_input.image.shape[:2], target)
        aug_input.transform(transform)
        return transform

    def around(self, size: tuple[int, int], target: np.ndarray) -> CropTransform:
        """A crop of an image of (height, width) at random around a target (4,) XYXY in pixels."""
        crop_h, crop_w = self.crop_aug.get_crop_size(size)
        starts = []
        for low, high, crop, side in (
            (target[0], target[2], crop_w, size[1]),
            (target[1], target[3], crop_h, size[0]),
        ):
            # With a target larger than the crop these change places: the crop is inside it.
            first, last = sorted((int(np.ceil(high)) - crop, int(low)))
            starts.append(int(np.clip(np.random.randint(first, last + 1), 0, side - crop)))
        return CropTransform(*starts, crop_w, crop_h)

    def _draw_target(
        self,
        size: tuple[int, int],
        sem_seg: np.ndarray | None,
        boxes: np.ndarray | None,
        classes: np.ndarray | None,
    ) -> np.ndarray | None:
        """A pixel, as a box (4,), or a box of a class of the image; None where it has none."""
        labels = np.zeros(0, int)
        if sem_seg is not None:
            counts = cv2.calcHist([sem_seg], [0], None, [256], [0, 256]).reshape(-1)
            if 0 <= self.ignored_category < len(counts):
                counts[self.ignored_category] = 0
            labels = np.flatnonzero(counts)
        if boxes is None or classes is None:
            boxes, classes = np.zeros((0, 4)), np.zeros(0, int)
        boxes = cut_boxes(boxes, np.array([0, 0, size[1], size[0]]), 0.0)
        has_area = boxes[:, 2] > boxes[:, 0]
        boxes, classes = boxes[has_area], classes[has_area]
        things = np.unique(classes)
        if not len(labels) + len(things):
            return None
        drawn = np.random.randint(len(labels) + len(things))
        if drawn >= len(labels):
            found = np.flatnonzero(classes == things[drawn - len(labels)])
            return boxes[np.random.choice(found)]
        assert sem_seg is not None
        x, y = _draw_pixel(sem_seg == labels[drawn])
        return np.array([x, y, x + 1, y + 1])


def _draw_pixel(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of one of the pixels of a mask (H, W) that has some, each as likely as any other."""
    ends = np.count_nonzero(mask, axis=1).cumsum()
    rank = np.random.randint(ends[-1])
    y = int(np.searchsorted(ends, rank, side="right"))
    before = ends[y - 1] if y else 0
    return int(np.flatnonzero(mask[y])[rank - before]), y
