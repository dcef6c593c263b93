"""Boundary IoU: how well the edges of what is labelled are found."""

from __future__ import annotations

import math

import cv2
import numpy as np

# Of the image's diagonal: how far from its edge a pixel of a region counts (Cheng et al. 2021).
RATIO = 0.02


class BoundaryCounts:
    """Boundary IoU by class over a dataset, from counts that do not grow with it.

    Of a class, only the pixels within `ratio` of the image's diagonal of the region's edge count:
    it is the IoU of the truth's and the prediction's (Cheng et al., "Boundary IoU", CVPR 2021,
    equation 2). As there, the image's border is an edge, and distances are those of a square.
    Intersections and unions are added up over all images, as those of mIoU are. Pixels that the
    truth ignores are left out, and where they begin is an edge in both.
    """

    def __init__(self, num_classes: int, ratio: float = RATIO):
        """
        Args:
            num_classes: K.
            ratio: of the image's diagonal.
        """
        self.num_classes = num_classes
        self.ratio = ratio
        self.both = np.zeros(num_classes, np.int64)
        self.truth = np.zeros(num_classes, np.int64)
        self.prediction = np.zeros(num_classes, np.int64)

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Add an image.

        Args:
            prediction, truth: (H, W) integers; K or more in the truth is ignored.
        """
        classes = self.num_classes
        kind = np.uint8 if classes < 256 else np.uint16
        truth = np.minimum(truth, classes).astype(kind)
        prediction = np.where(truth == classes, truth, prediction).astype(kind)
        reach = boundary_reach(truth.shape, self.ratio)
        edges = [only_boundary(label, reach, classes) for label in (truth, prediction)]
        both = edges[0][edges[0] == edges[1]]
        for counts, found in zip(
            (self.truth, self.prediction, self.both), (*edges, both), strict=True
        ):
            counts += np.bincount(found.reshape(-1), minlength=classes + 1)[:classes]

    def merge(self, other: BoundaryCounts) -> None:
        """Add another's images."""
        self.both += other.both
        self.truth += other.truth
        self.prediction += other.prediction

    def iou(self) -> np.ndarray:
        """(K,) float64 in percent; NaN for a class that neither truth nor prediction has."""
        union = self.truth + self.prediction - self.both
        with np.errstate(invalid="ignore"):
            return np.where(union > 0, 100 * self.both / union, np.nan)


def boundary_reach(size: tuple[int, ...], ratio: float = RATIO) -> int:
    """Pixels from a region's edge that count in an image (height, width); at least 1."""
    return max(1, round(ratio * math.hypot(*size[:2])))


def only_boundary(label: np.ndarray, reach: int, none: int) -> np.ndarray:
    """A label map whose pixels further than `reach` inside their region are `none`.

    That is a region less its erosion by a square of 2 reach + 1, for all regions at once: a pixel
    is inside where the smallest and the largest label of the square around it are equal.

    Args:
        label: (H, W) uint8 or uint16.
        reach: in pixels.
        none: a value of that type.
    """
    square = np.ones((2 * reach + 1,) * 2, np.uint8)
    inside = cv2.erode(label, square) == cv2.dilate(label, square)
    out = label.copy()
    # The image's border is an edge, too.
    rows, columns = (slice(reach, max(reach, side - reach)) for side in label.shape)
    out[rows, columns][inside[rows, columns]] = none
    return out
