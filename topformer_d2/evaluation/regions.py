"""Connected regions that are labelled one class and predicted another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ..inference.sampled_confidence import STRIDE

# Pairs of classes of an image that are looked at, those with the most pixels first, and regions of
# each; what is left out is smaller.
_PAIRS, _REGIONS = 4, 2
# Of the image's pixels, that a region has at least.
SMALLEST = 1e-3


@dataclass(frozen=True)
class Region:
    """A connected region of one wrong class.

    Attributes:
        truth, predicted: the classes.
        box: x0, y0, x1, y1 in pixels; x1 and y1 are just outside.
        pixels: their number.
        confidence: mean over those of them that were sampled, in 0..1; None = there is none.
    """

    truth: int
    predicted: int
    box: tuple[int, int, int, int]
    pixels: int
    confidence: float | None


def wrong_regions(
    prediction: np.ndarray, truth: np.ndarray, confidence: np.ndarray | None, matrix: np.ndarray
) -> Iterator[Region]:
    """The largest regions of an image's most frequent confusions.

    Args:
        prediction, truth: (H, W) integers.
        confidence: floats, of the prediction at every STRIDE-th row and column; None = there is
            none.
        matrix: (K, K), the image's confusion matrix.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    smallest = max(4, int(SMALLEST * truth.size))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    for labelled, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[labelled, predicted] < smallest:
            return
        mask = ((truth == labelled) & (prediction == predicted)).view(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
        for part in 1 + np.argsort(-areas, kind="stable")[:_REGIONS]:
            x, y, width, height, pixels = stats[part].tolist()
            if pixels < smallest:
                break
            sampled = parts[::STRIDE, ::STRIDE] == part
            if sampled.any():  # else it is thinner than the samples' distance
                sure = None if confidence is None else float(confidence[sampled].mean())
                box = (x, y, x + width, y + height)
                yield Region(int(labelled), int(predicted), box, pixels, sure)
