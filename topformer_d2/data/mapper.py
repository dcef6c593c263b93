"""From a dataset's record to what the model takes: image, pixel labels, boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances

from ..config import model_tasks
from ..errors import InputError
from ..tasks import BOXES, PIXELS
from .augmentation import (
    build_appearance,
    build_geometry,
    build_test_augmentation,
    build_train_augmentation,
)
from .augmentations import Mixing, Picture
from .augmentations.build import build_mixing
from .boxes import corners
from .images import read_image, read_label
from .label_checks import check_image_size, check_label_range, check_label_size
from .object_outlines import Outline, outline_of


class TaskMapper:
    """Reads and augments a record for the tasks that are trained; names the file that is wrong."""

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        tasks: tuple[str, ...],
        augmentations: list[T.Augmentation],
        image_format: str,
        num_labels: int = 0,
        ignore_value: int = 255,
        mixing: Mixing | None = None,
        after_mixing: Sequence[T.Augmentation] = (),
    ):
        """
        Args:
            is_train: training samples carry the truth; test samples are the image alone, for
                evaluators read the truth themselves and the model must not see it.
            tasks: "sem_seg" (pixel labels), "instances" (boxes) or both.
            augmentations: Detectron2 augmentations, applied in order.
            image_format: "RGB" or "BGR".
            num_labels, ignore_value: pixel labels are below the one or equal to the other.
            mixing: makes a sample of several records, each augmented; None = it is of one.
            after_mixing: augmentations that come after it.
        """
        self.is_train = is_train
        self.tasks = tasks
        self.num_labels = num_labels
        self.ignore_value = ignore_value
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.mixing = mixing
        self.after_mixing = T.AugmentationList(after_mixing)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise InputError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; known: RGB, BGR")
        mixing = build_mixing(cfg) if is_train else None
        augmentations: list[T.Augmentation]
        after_mixing: list[T.Augmentation]
        if not is_train:
            augmentations, after_mixing = [build_test_augmentation(cfg)], []
        elif mixing is None:
            augmentations, after_mixing = build_train_augmentation(cfg), []
        else:  # colours once, of the mixed image, are faster and the same all over it
            augmentations, after_mixing = build_geometry(cfg), build_appearance(cfg)
        return {
            "is_train": is_train,
            "tasks": model_tasks(cfg),
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "num_labels": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "mixing": mixing,
            "after_mixing": after_mixing,
        }

    def __call__(self, record: dict, draw_other: Callable[[], dict] | None = None) -> dict:
        """The record with "image" (3, H, W) uint8, "height" and "width" of the file's image, and
        in training "sem_seg" (H, W) uint8 and "instances" with gt_boxes (XYXY) and gt_classes.

        Of the model's tasks, the truth is made for those in the record's "tasks"; a record without
        that has labels for all. Objects marked iscrowd are not trained on, and what
        augmentation cuts off is gone.

        Args:
            record: of a dataset.
            draw_other: gives a random record with truth of the same kinds, for `mixing`; None = the
                sample is of this record alone.

        Raises:
            InputError: the image or its labels cannot be read, differ in size, or a label is out
                of range.
        """
        sample = dict(record)
        picture, (sample["height"], sample["width"]) = self._augmented(record)
        for key in (PIXELS.record_key, BOXES.record_key):
            sample.pop(key, None)
        if self.mixing is not None and draw_other is not None:
            picture = self.mixing(picture, lambda: self._augmented(draw_other())[0])
        if self.after_mixing.augs:
            picture = _apply(self.after_mixing, picture)
        sample["image"] = _channels_first(picture.image)
        if picture.sem_seg is not None:
            sample["sem_seg"] = torch.from_numpy(picture.sem_seg.copy())
        if picture.boxes is not None:
            size = picture.image.shape[:2]
            boxes, classes = map(torch.from_numpy, (picture.boxes, picture.classes))
            sample["instances"] = Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)
        return sample

    def _augmented(self, record: dict) -> tuple[Picture, tuple[int, int]]:
        """A record's image with its truth, augmented, and (height, width) of the file's image."""
        image = read_image(record["file_name"], self.image_format)
        check_image_size(record, image.shape[:2])
        truth, classes, outlines = {}, None, None
        tasks = set(record.get("tasks", self.tasks)).intersection(
            self.tasks if self.is_train else ()
        )
        if PIXELS.name in tasks:
            label_file = record.get(PIXELS.record_key)
            truth["sem_seg"] = self._read_label(label_file, image, record["file_name"])
        if BOXES.name in tasks:
            truth["boxes"], classes = _boxes_and_classes(record.get(BOXES.record_key, []))
            outlines = self._outlines(record, image.shape[:2])
        picture = Picture(image, truth.get("sem_seg"), truth.get("boxes"), classes, outlines)
        return _apply(self.augmentations, picture), image.shape[:2]

    def _outlines(self, record: dict, size: tuple[int, int]) -> list[Outline] | None:
        """Of the objects of _boxes_and_classes, where copy-paste needs them and there are any."""
        if self.mixing is None or not self.mixing.copy_paste_prob:
            return None
        try:
            found = [outline_of(a, size) for a in _objects(record.get(BOXES.record_key, []))]
        except InputError as e:
            raise InputError(f"{record['file_name']}: {e}") from e
        return found if any(found) else None

    def _read_label(self, file: str | None, image: np.ndarray, image_file: str) -> np.ndarray:
        if not file:
            raise InputError(f"{image_file} has no label file (sem_seg_file_name)")
        label = read_label(file)
        check_label_size(label, image.shape[:2], file, image_file)
        check_label_range(label, self.num_labels, self.ignore_value, file)
        return label


def _apply(augmentations: T.AugmentationList, picture: Picture) -> Picture:
    """A picture after augmentations, with the boxes of which something is inside the image."""
    augmented = T.AugInput(picture.image, boxes=picture.boxes, sem_seg=picture.sem_seg)
    augmented.classes = picture.classes  # for augmentations that draw by class
    done = augmentations(augmented)
    made = Picture(augmented.image, augmented.sem_seg)
    if picture.classes is not None:
        boxes = Boxes(torch.from_numpy(augmented.boxes.astype(np.float32)))
        boxes.clip(augmented.image.shape[:2])
        outlines = picture.outlines
        if outlines is not None:
            outlines = [[done.apply_coords(polygon) for polygon in each] for each in outlines]
        made.keep_boxes(boxes.tensor.numpy(), picture.classes, outlines)
    return made


def _channels_first(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 to (3, H, W), by OpenCV several times faster than a transposed copy."""
    planes = np.empty((3, *image.shape[:2]), image.dtype)
    cv2.split(np.ascontiguousarray(image), list(planes))
    return torch.from_numpy(planes)


def _boxes_and_classes(annotations: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) float64 XYXY in pixels and classes (n,) int64 of all objects but crowds."""
    objects = _objects(annotations)
    boxes = [corners(a) for a in objects]
    classes = [a["category_id"] for a in objects]
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64)


def _objects(annotations: list[dict]) -> list[dict]:
    return [a for a in annotations if not a.get("iscrowd", 0)]
