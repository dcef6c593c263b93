"""Calibration: whether what is predicted with a confidence of 0.8 is right in 80% of the cases."""

from __future__ import annotations

import numpy as np

BINS = 15


class Reliability:
    """A reliability curve and its ECE, from counts that do not grow with the dataset.

    Predictions are put into bins of equal width by their confidence, (0, 1/15], (1/15, 2/15], ...;
    of each bin the mean confidence is held against the share that is right (Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017, section 2).
    """

    def __init__(self, bins: int = BINS):
        """
        Args:
            bins: of equal width.
        """
        self.count = np.zeros(bins, np.int64)
        self.right = np.zeros(bins, np.int64)
        self.total = np.zeros(bins, np.float64)

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Add predictions.

        Args:
            confidence: floats in 0..1, of any shape.
            right: bool of the same shape.
        """
        bins = len(self.count)
        confidence = confidence.reshape(-1)
        place = np.ceil(confidence * bins).astype(np.intp) - 1
        np.clip(place, 0, bins - 1, out=place)
        self.total += np.bincount(place, weights=confidence, minlength=bins)
        both = np.bincount(2 * place + right.reshape(-1), minlength=2 * bins).reshape(bins, 2)
        self.count += both.sum(axis=1)
        self.right += both[:, 1]

    def merge(self, other: Reliability) -> None:
        """Add another's predictions."""
        self.count += other.count
        self.right += other.right
        self.total += other.total

    def ece(self) -> float:
        """The expected calibration error in 0..1; NaN without a prediction.

        It is the mean of |share that is right - mean confidence| over the bins, by their counts
        (Guo et al. 2017, equation 3).
        """
        count = self.count.sum()
        return float(np.abs(self.right - self.total).sum() / count) if count else float("nan")

    def to_dict(self) -> dict:
        """{"ece", "bins": [{"count", "confidence", "right"}]}; the latter two are None in an
        empty bin, else means in 0..1.
        """
        bins = [
            {
                "count": int(count),
                "confidence": total / count if count else None,
                "right": right / count if count else None,
            }
            for count, total, right in zip(
                self.count.tolist(), self.total.tolist(), self.right.tolist(), strict=True
            )
        ]
        return {"ece": self.ece(), "bins": bins}
