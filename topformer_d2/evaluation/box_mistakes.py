"""What a detector gets wrong: from the detections that its evaluation has gathered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.registered import load_records
from ..data.suspects import Suspect
from .calibration import Reliability
from .coco import BoxEvaluator
from .tide import (
    CLASS,
    IGNORED,
    NOTHING,
    PLACE,
    RIGHT,
    Detections,
    match_image,
)

_SUSPECTS, _PER_IMAGE = 100, 3
_COLUMNS = ("classes", "scores", "kinds", "objects", "truth_classes", "crowd")
_SUSPICIOUS = {CLASS: "class", PLACE: "place", NOTHING: "missing"}


@dataclass(frozen=True)
class ImageBoxes:
    """The objects and detections of an image.

    Attributes:
        file_name: of the image.
        boxes, truth_boxes: (n, 4) and (m, 4); x0, y0, x1, y1 in pixels.
        found, truth: slices of the dataset's Detections that are this image's.
    """

    file_name: str
    boxes: np.ndarray
    truth_boxes: np.ndarray
    found: slice
    truth: slice


class BoxMistakes(BoxEvaluator):
    """BoxEvaluator, and what the model gets wrong. Its results are BoxEvaluator's.

    Attributes:
        matched: what all detections are, set by evaluate().
        images: those that were evaluated, set by evaluate().
    """

    matched: Detections | None = None
    images: list[ImageBoxes]

    def __init__(self, dataset_name: str, **keys: Any):
        """
        Args:
            dataset_name: as BoxEvaluator's.
            keys: the others of BoxEvaluator.
        """
        super().__init__(dataset_name, **keys)
        self._files = {
            self._numbers[record["image_id"]]: record["file_name"]
            for record in load_records(dataset_name)
            if record.get("image_id") in self._numbers
        }
        self.class_names = list(self._metadata.thing_classes)
        to_index = self._metadata.get("thing_dataset_id_to_contiguous_id")
        self._to_index = to_index or {i: i for i in range(len(self.class_names))}

    def examine(self, results: list[dict], image_numbers: Iterable[int]) -> None:
        """Match all detections with the truth.

        Args:
            results: in COCO's format, by the images' numbers.
            image_numbers: of the images that are evaluated.
        """
        by_image = defaultdict(list)
        for result in results:
            by_image[result["image_id"]].append(result)
        self.images, matches, parts = [], [], []
        num_found = num_truth = 0
        for number in image_numbers:
            found = by_image.get(number, [])
            truth = self._truth.imgToAnns.get(number, [])
            boxes, classes = self._arrays(found)
            truth_boxes, truth_classes = self._arrays(truth)
            scores = np.array([r["score"] for r in found], np.float64)
            crowd = np.array([bool(a["iscrowd"]) for a in truth], bool)
            match = match_image(boxes, classes, scores, truth_boxes, truth_classes, crowd)
            objects = np.where(match.objects >= 0, match.objects + num_truth, -1)
            matches.append(match)
            parts.append((classes, scores, match.kinds, objects, truth_classes, crowd))
            self.images.append(
                ImageBoxes(
                    self._files[number],
                    _corners(boxes),
                    _corners(truth_boxes),
                    slice(num_found, num_found + len(found)),
                    slice(num_truth, num_truth + len(truth)),
                )
            )
            num_found, num_truth = num_found + len(found), num_truth + len(truth)
        if not parts:
            return
        columns = [np.concatenate(each) for each in zip(*parts, strict=True)]
        missed = np.concatenate([match.missed for match in matches])
        fields = dict(zip(_COLUMNS, columns, strict=True))
        self.matched = Detections(**fields, missed=missed, num_classes=len(self.class_names))

    def _arrays(self, annotations: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4), x, y, width, height; and the classes' indices (n,)."""
        boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
        classes = [self._to_index[a["category_id"]] for a in annotations]
        return boxes, np.array(classes, np.int64)


def reliability_of(matched: Detections) -> Reliability:
    """Scores against the share of detections that are right, at an IoU of 0.5."""
    found = Reliability()
    counted = matched.kinds != IGNORED
    found.add(matched.scores[counted], matched.kinds[counted] == RIGHT)
    return found


def best_threshold(matched: Detections) -> float:
    """The score from which on the F1 of all classes together is largest; 0 without a right one."""
    counted = matched.kinds != IGNORED
    scores, right = matched.scores[counted], matched.kinds[counted] == RIGHT
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + (~matched.crowd).sum())
    return float(scores[order][f1.argmax()])


def box_confusion(matched: Detections, threshold: float) -> np.ndarray:
    """Objects by class (row) and by what was found there (column), from a score on.

    Each object counts once: as right, or as the class of the best detection with an error of
    classification, or as not found, in the last column. The last row has the detections where
    nothing is, and those that are duplicates or in the wrong place.

    Returns:
        (K + 1, K + 1) int64.
    """
    k = matched.num_classes
    matrix = np.zeros((k + 1, k + 1), np.int64)
    seen = np.where(matched.crowd, -2, k)  # what each object is taken for
    order = np.argsort(-matched.scores, kind="stable")
    for kind in (RIGHT, CLASS):
        for i in order[(matched.kinds == kind)[order] & (matched.scores >= threshold)[order]]:
            if seen[matched.objects[i]] == k:
                seen[matched.objects[i]] = matched.classes[i]
    valid = ~matched.crowd
    np.add.at(matrix, (matched.truth_classes[valid], seen[valid]), 1)
    loose = (matched.scores >= threshold) & ~np.isin(matched.kinds, (RIGHT, CLASS, IGNORED))
    matrix[k] += np.bincount(matched.classes[loose], minlength=k + 1)
    return matrix


@dataclass(frozen=True)
class BoxImage:
    """An image by its errors, from a score on.

    Attributes:
        image: its boxes.
        missed: objects that are not found.
        false: detections that are wrong.
    """

    image: ImageBoxes
    missed: int
    false: int


def worst_images(evaluator: BoxMistakes, threshold: float, most: int) -> list[BoxImage]:
    """The images with the most missed objects; among equal ones, with the most wrong detections."""
    matched = evaluator.matched
    found = []
    for image in evaluator.images if matched is not None else ():
        kinds = matched.kinds[image.found]
        counts = matched.scores[image.found] >= threshold
        objects = int((~matched.crowd[image.truth]).sum())
        missed = objects - int(((kinds == RIGHT) & counts).sum())
        false = int((~np.isin(kinds, (RIGHT, IGNORED)) & counts).sum())
        if missed or false:
            found.append(BoxImage(image, missed, false))
    return sorted(found, key=lambda each: (-each.missed, -each.false))[:most]


def suspected_boxes(evaluator: BoxMistakes) -> list[Suspect]:
    """Detections of high score that are wrong by the truth, the surest first.

    Duplicates are no sign of a wrong label, and are left out. So are detections of an object that
    the model has found rightly with at least their score, and those near another suspect.
    """
    matched, suspects = evaluator.matched, []
    if matched is None:
        return []
    agreed = np.zeros(len(matched.truth_classes))  # the score with which each object is found
    right = matched.kinds == RIGHT
    agreed[matched.objects[right]] = matched.scores[right]
    for image in evaluator.images:
        kinds, scores = matched.kinds[image.found], matched.scores[image.found]
        wrong = np.flatnonzero(np.isin(kinds, list(_SUSPICIOUS)))
        taken: list[np.ndarray] = []
        for i in wrong[np.argsort(-scores[wrong], kind="stable")]:
            box, place = image.boxes[i], image.found.start + i
            truth = matched.objects[place]
            if truth >= 0 and agreed[truth] >= scores[i]:
                continue
            if len(taken) == _PER_IMAGE or any(_overlap(box, other) > 0.5 for other in taken):
                continue
            taken.append(box)
            names = evaluator.class_names
            suspects.append(
                Suspect(
                    file_name=image.file_name,
                    kind=_SUSPICIOUS[kinds[i]],
                    box=tuple(np.round(box, 1).tolist()),
                    labelled=names[matched.truth_classes[truth]] if truth >= 0 else None,
                    predicted=names[matched.classes[place]],
                    confidence=float(scores[i]),
                )
            )
    suspects.sort(key=lambda suspect: -suspect.confidence)
    return suspects[:_SUSPECTS]


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    """The IoU of two boxes x0, y0, x1, y1."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    both = np.prod(np.maximum(high - low, 0))
    union = np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - both
    return float(both / union) if union else 0.0


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
