"""How far a network's answer is from the one expected, and where."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

# The largest difference that counts as the same, of values whose range is 1 to 100.
TOLERANCE = 1e-3
# As a share of a larger range: float32 gives no better through many layers.
_SHARE = 1e-5
# The limit is never below this share of the largest magnitude. All values may lie close to a large
# one, such as a bias. Some processors start the sum of thousands of terms from the bias, so each
# step is rounded to its precision: a difference of 5e-6 of it was seen.
_ROUNDING = 1e-5
# Nor below this many times the rounding error of PyTorch itself, where that is known. That of
# another runtime was up to 4 times as large.
_OTHER_ROUNDING = 8
# The limit where all values are 0, so that nothing is divided by 0.
_LEAST = 1e-30


@dataclass(frozen=True)
class Difference:
    """The largest in an output.

    Attributes:
        output: its name.
        value: not finite where shapes differ or a value is not.
        where: its place, in words.
        limit: the most that counts as the same.
        scale: the largest magnitude of the values expected; None of boxes and scores.
    """

    output: str
    value: float
    where: str
    limit: float = TOLERANCE
    scale: float | None = None

    @property
    def share(self) -> float:
        """Of the limit; up to 1 they count as the same."""
        return self.value / self.limit if self.value else 0.0

    def __str__(self) -> str:
        values = "" if self.scale is None else f", of values up to {self.scale:.3g}"
        return f"{self.output}: differs by {self.value:.2g}{values} ({self.where})"


def tolerance(expected: Tensor, rounding: float = 0.0) -> tuple[float, float]:
    """The most that a network's values may differ from these, and their largest magnitude.

    TOLERANCE where their range, from the smallest to the largest, is the usual one. A share of it
    where it is below 1, as an untrained network's may be, and where it is above 100. Never less
    than _ROUNDING of the largest magnitude, nor than _OTHER_ROUNDING times `rounding`, which is how
    far PyTorch's float32 is from double precision, or its weights in float16 from those.
    """
    low, high = map(float, expected.aminmax())
    spread, scale = high - low, max(abs(low), abs(high))
    usual = max(TOLERANCE * min(spread, 1.0), _SHARE * spread, _ROUNDING * scale, _LEAST)
    return max(usual, _OTHER_ROUNDING * rounding), scale


def compare_values(
    output: str, expected: Tensor, given: np.ndarray, rounding: float = 0.0
) -> Difference:
    """The largest absolute difference of two arrays of one shape; `rounding` is tolerance's."""
    if tuple(expected.shape) != given.shape:
        where = f"shape {given.shape} instead of {tuple(expected.shape)}"
        return Difference(output, float("inf"), where)
    if given.size == 0:
        return Difference(output, 0.0, "nothing there")
    differences = (torch.from_numpy(given) - expected).abs().nan_to_num(nan=float("inf"))
    index = np.unravel_index(int(differences.argmax()), given.shape)
    where = f"index {tuple(map(int, index))}"
    return Difference(output, float(differences.max()), where, *tolerance(expected, rounding))


def compare_labels(
    output: str, logits: Tensor, given: np.ndarray, rounding: float = 0.0
) -> Difference:
    """How much the logits of the labels given lie below the largest ones; 0 where none differs.

    Labels at equal logits may differ, so that is not counted as a difference. Two logits may each
    be off by the tolerance, so that their distance may be off by twice as much.

    Args:
        logits: (N, K, H, W), of the labels expected.
        given: (N, H, W) integers.
        rounding: tolerance's, of the logits.
    """
    best, labels = logits.max(dim=1)
    if tuple(labels.shape) != given.shape or (given.size and given.max() >= logits.shape[1]):
        where = f"shape {given.shape} and labels up to {given.max(initial=0)}"
        return Difference(output, float("inf"), where)
    other = torch.from_numpy(given.astype(np.int64))
    found = compare_values(output, best, logits.gather(1, other[:, None])[:, 0].numpy())
    share = float((other != labels).float().mean())
    where = f"{found.where}, {share:.4%} of the pixels differ"
    limit, scale = tolerance(logits, rounding)
    return replace(found, where=where, limit=2 * limit, scale=scale)
