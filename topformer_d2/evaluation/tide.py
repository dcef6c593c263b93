"""The kinds of a detector's errors, and the AP50 that fixing each would give.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask

# IoU from which a box is right, and up to which it is background.
FOREGROUND, BACKGROUND = 0.5, 0.1

# At which COCO takes the precision.
RECALLS = np.linspace(0, 1, 101)

# What a detection is. An ignored one lies in a crowd, and is neither right nor wrong.
IGNORED, RIGHT, CLASS, PLACE, BOTH, DUPLICATE, NOTHING = -1, 0, 1, 2, 3, 4, 5
MISSED = 6  # of an object, and not of a detection
# Kinds of errors and what they are called, in the order of the paper.
ERRORS = {
    CLASS: "classification",
    PLACE: "localisation",
    BOTH: "both",
    DUPLICATE: "duplicate",
    NOTHING: "background",
    MISSED: "missed",
}


@dataclass(frozen=True)
class ImageMatch:
    """What an image's detections are.

    Attributes:
        kinds: (n,) of each detection, in the order given.
        objects: (n,) the object that it has found, or would have found but for its error; else -1.
        missed: (m,) bool, the objects that no detection has found, nor would have.
        found: (m,) bool, the objects that are found.
    """

    kinds: np.ndarray
    objects: np.ndarray
    missed: np.ndarray
    found: np.ndarray


def match_image(
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    truth_boxes: np.ndarray,
    truth_classes: np.ndarray,
    crowd: np.ndarray,
) -> ImageMatch:
    """Say of each detection of an image what it is.

    The best detections come first, and each takes the object of its class that it overlaps most
    among those that are free, from an IoU of 0.5 on. An error is the first of these that holds:
    localisation, where the largest IoU with an object of its class is within 0.1 to 0.5;
    classification, where that with one of another class is at least 0.5; duplicate, where the
    object of its class is taken; background, where all are at most 0.1; both, else. An object is
    missed where no detection has found it, and none with an error of classification or
    localisation would have.

    Args:
        boxes: (n, 4) float64; x, y, width, height.
        classes: (n,) integers.
        scores: (n,) floats.
        truth_boxes, truth_classes: of the m objects, alike.
        crowd: (m,) bool: regions of many objects. They cannot be found; a detection that finds
            nothing and of which more than half lies in one of its class is ignored.
    """
    kinds = np.full(len(boxes), NOTHING)
    objects = np.full(len(boxes), -1)
    single = ~crowd
    free = single.copy()
    same = classes[:, None] == truth_classes[None, :]
    iou = _iou(boxes, truth_boxes, np.zeros(len(crowd), bool)) * single
    order = np.argsort(-scores, kind="stable")
    for i in order:
        overlaps = iou[i] * (same[i] & free)
        if len(overlaps) and overlaps.max() >= FOREGROUND:
            kinds[i], objects[i] = RIGHT, overlaps.argmax()
            free[objects[i]] = False
    in_crowd = _iou(boxes, truth_boxes, crowd) * same * crowd
    wanted = np.zeros(len(crowd), bool)
    for i in order:
        if kinds[i] == RIGHT:
            continue
        if in_crowd[i].max(initial=0) > FOREGROUND:
            kinds[i] = IGNORED
            continue
        own, other = iou[i] * same[i], iou[i] * ~same[i]
        if BACKGROUND <= own.max(initial=0) <= FOREGROUND:
            kinds[i], objects[i] = PLACE, own.argmax()
        elif other.max(initial=0) >= FOREGROUND:
            kinds[i], objects[i] = CLASS, other.argmax()
        elif own.max(initial=0) >= FOREGROUND:
            kinds[i] = DUPLICATE
        elif iou[i].max(initial=0) > BACKGROUND:
            kinds[i] = BOTH
        if objects[i] >= 0:
            wanted[objects[i]] = True
    return ImageMatch(kinds, objects, free & ~wanted, single & ~free)


def _iou(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(n, m) IoU of boxes (x, y, width, height); with a crowd, the share of the box inside."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    values = [np.ascontiguousarray(each, np.float64) for each in (boxes, others)]
    return np.asarray(mask.iou(*values, crowd.astype(np.uint8).tolist()))


@dataclass(frozen=True)
class Detections:
    """The detections and objects of a dataset, matched.

    Attributes:
        classes: (n,) of the detections.
        scores: (n,) float64.
        kinds: (n,) what each is.
        objects: (n,) index of the object that it found or would have found, else -1.
        truth_classes: (m,) of the objects, crowds among them.
        crowd: (m,) bool.
        missed: (m,) bool.
        num_classes: K.
    """

    classes: np.ndarray
    scores: np.ndarray
    kinds: np.ndarray
    objects: np.ndarray
    truth_classes: np.ndarray
    crowd: np.ndarray
    missed: np.ndarray
    num_classes: int

    def errors(self) -> dict[int, int]:
        """How many errors of each kind there are."""
        counts = {kind: int((self.kinds == kind).sum()) for kind in ERRORS}
        return {**counts, MISSED: int(self.missed.sum())}

    def ap50(self, fixed: int | None = None) -> np.ndarray:
        """AP at an IoU of 0.5 of each class, in percent; NaN for one without an object.

        Args:
            fixed: a kind of error that is fixed first, as in the paper's section 2.3: a
                classification or localisation error becomes right where it is the best of those
                for its object and that is not found, and else is removed; duplicates, errors of
                both and of background are removed; missed objects are taken out of the truth.
        """
        keep = self.kinds != IGNORED
        right, classes = self.kinds == RIGHT, self.classes
        objects = ~self.crowd
        if fixed in (CLASS, PLACE):
            best = self._best_of_objects() & (self.kinds == fixed)
            keep &= (self.kinds != fixed) | best
            classes = np.where(best, self.truth_classes[self.objects], classes)
            right = right | best
        elif fixed == MISSED:
            objects = objects & ~self.missed
        elif fixed is not None:
            keep &= self.kinds != fixed
        positives = np.bincount(self.truth_classes[objects], minlength=self.num_classes)
        values = np.full(self.num_classes, np.nan)
        for k in range(self.num_classes):
            mine = keep & (classes == k)
            if positives[k]:
                values[k] = average_precision(self.scores[mine], right[mine], positives[k])
            elif fixed is not None and (self.truth_classes[~self.crowd] == k).any() and mine.any():
                values[k] = 0.0  # all of its objects were missed, and what was found is wrong
        return values

    def _best_of_objects(self) -> np.ndarray:
        """(n,) bool: the best of the detections that would find an object that is not found."""
        is_open = np.ones(len(self.truth_classes), bool)
        is_open[self.objects[self.kinds == RIGHT]] = False
        near = np.flatnonzero(np.isin(self.kinds, (CLASS, PLACE)))
        near = near[is_open[self.objects[near]]]
        near = near[np.argsort(-self.scores[near], kind="stable")]
        _, first = np.unique(self.objects[near], return_index=True)
        best = np.zeros(len(self.kinds), bool)
        best[near[first]] = True
        return best


def average_precision(scores: np.ndarray, right: np.ndarray, positives: int) -> float:
    """COCO's AP of a class in percent: the mean precision at the recalls 0, 0.01, ..., 1.

    Args:
        scores: (n,) of its detections.
        right: (n,) bool.
        positives: objects of the class, 1 or more.
    """
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(hits / positives, RECALLS, side="left")
    return float(100 * np.append(precision, 0.0)[np.minimum(place, len(hits))].mean())
