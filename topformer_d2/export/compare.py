"""How far a network's answer is from the one expected, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..inference.export_info import BoxDecoding

# The largest difference that counts as the same, of values whose range is 1 to 100.
TOLERANCE = 1e-3
# As a share of a larger range: float32 gives no better through many layers.
_SHARE = 1e-5
# As a share of the largest magnitude, a bias perhaps, beside which the range is small; PyTorch's
# own sums are rounded to a tenth of it.
_ROUNDING = 1e-6
# Where all are 0.
_LEAST = 1e-30
# Boxes of a class that are further apart than this are not the same box.
_SAME_BOX = 0.05


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


@dataclass(frozen=True)
class Detections:
    """Of one image: boxes (n, 4) XYXY in pixels, scores (n,), classes (n,)."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.scores)


def tolerance(expected: Tensor) -> tuple[float, float]:
    """The most that a network's values may differ from these, and their largest magnitude.

    TOLERANCE where their range, from the smallest to the largest, is the usual one. A share of it
    where it is below 1, as an untrained network's may be, and where it is above 100. Never less
    than _ROUNDING of the largest magnitude.
    """
    low, high = map(float, expected.aminmax())
    spread, scale = high - low, max(abs(low), abs(high))
    return max(TOLERANCE * min(spread, 1.0), _SHARE * spread, _ROUNDING * scale, _LEAST), scale


def compare_values(output: str, expected: Tensor, given: np.ndarray) -> Difference:
    """The largest absolute difference of two arrays of one shape."""
    if tuple(expected.shape) != given.shape:
        where = f"shape {given.shape} instead of {tuple(expected.shape)}"
        return Difference(output, float("inf"), where)
    if given.size == 0:
        return Difference(output, 0.0, "nothing there")
    differences = (torch.from_numpy(given) - expected).abs().nan_to_num(nan=float("inf"))
    index = np.unravel_index(int(differences.argmax()), given.shape)
    where = f"index {tuple(map(int, index))}"
    return Difference(output, float(differences.max()), where, *tolerance(expected))


def compare_labels(output: str, logits: Tensor, given: np.ndarray) -> Difference:
    """How much the logits of the labels given lie below the largest ones; 0 where none differs.

    Labels at equal logits may differ, so it is no difference where they do.

    Args:
        logits: (N, K, H, W), of the labels expected.
        given: (N, H, W) integers.
    """
    best, labels = logits.max(dim=1)
    if tuple(labels.shape) != given.shape or (given.size and given.max() >= logits.shape[1]):
        where = f"shape {given.shape} and labels up to {given.max(initial=0)}"
        return Difference(output, float("inf"), where)
    other = torch.from_numpy(given.astype(np.int64))
    found = compare_values(output, best, logits.gather(1, other[:, None])[:, 0].numpy())
    share = float((other != labels).float().mean())
    where = f"{found.where}, {share:.4%} of the pixels differ"
    limit, scale = tolerance(logits)
    return replace(found, where=where, limit=limit, scale=scale)


def compare_boxes(
    expected: Detections, given: Detections, candidates: Detections, limits: BoxDecoding
) -> Iterator[Difference]:
    """The largest differences of boxes and of scores between detections that belong together.

    There are none where both have found nothing. A box's is divided by its longer side, as the
    network gives boxes in units of their size. A box without a counterpart counts with its score,
    unless a difference of TOLERANCE explains it:
    - its score is at the threshold, or below the last of a full list;
    - it is a candidate, and its overlap with another box of its class is at the NMS's;
    - it is a candidate, and the NMS chose between it and one of equal score;
    - the NMS drops it beside one of which either is true.

    Args:
        expected, given: after the NMS.
        candidates: those expected before it.
        limits: the NMS's.
    """
    if not len(expected) and not len(given):
        return
    pairs = list(_match(expected, given))
    boxes = Difference("boxes", 0.0, f"{len(pairs)} boxes")
    scores = Difference("scores", 0.0, f"{len(pairs)} boxes")
    for e, g in pairs:
        name = f"number {g} of {len(given)} boxes"
        distance = float(_distances(expected.boxes[e : e + 1], given.boxes[g : g + 1]))
        if distance > boxes.value:
            boxes = Difference("boxes", distance, f"{name}, as a share of its longer side")
        distance = float((expected.scores[e] - given.scores[g]).abs())
        if distance > scores.value:
            scores = Difference("scores", distance, name)
    alone = _unexplained(expected, given, candidates, pairs, limits)
    yield max([boxes, *alone], key=lambda found: found.value)
    yield scores


def _distances(boxes: Tensor, others: Tensor) -> Tensor:
    """(n, m): the largest distance of a coordinate, divided by the longer side of `boxes`."""
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1).clamp(min=1.0)
    return (boxes[:, None] - others).abs().amax(dim=2) / sides[:, None]


def _match(expected: Detections, given: Detections) -> Iterator[tuple[int, int]]:
    """Pairs of the indices of one box, each index once."""
    if not len(expected) or not len(given):
        return
    distances = _distances(expected.boxes, given.boxes)
    distances[expected.classes[:, None] != given.classes] = float("inf")
    distances.nan_to_num_(nan=float("inf"))
    for g in range(len(given)):
        e = int(distances[:, g].argmin())
        if distances[e, g] <= _SAME_BOX:
            distances[e] = float("inf")
            yield e, g


def _unexplained(
    expected: Detections,
    given: Detections,
    candidates: Detections,
    pairs: list[tuple[int, int]],
    limits: BoxDecoding,
) -> Iterator[Difference]:
    """The detections without a counterpart, less those that a difference of TOLERANCE explains."""
    both = Detections(
        torch.cat([expected.boxes, given.boxes]),
        torch.cat([expected.scores, given.scores]),
        torch.cat([expected.classes, given.classes]),
    )
    is_expected = torch.arange(len(both)) < len(expected)
    is_alone = torch.ones(len(both), dtype=torch.bool)
    for e, g in pairs:
        is_alone[[e, len(expected) + g]] = False
    overlaps = box_iou(both.boxes, both.boxes)
    overlaps[both.classes[:, None] != both.classes] = 0.0
    drops = overlaps > limits.nms_threshold  # whichever is the better of the two
    is_tie = is_alone & (is_expected[:, None] != is_expected)
    is_tie &= drops & ((both.scores[:, None] - both.scores).abs() <= TOLERANCE)
    at_limit = (overlaps - limits.nms_threshold).abs() <= TOLERANCE
    # What PyTorch has no candidate for explains nothing and is not explained.
    possible = is_expected | _is_among(both, candidates)
    undecided = ((at_limit | is_tie) & possible).any(dim=1)
    explained = possible & (undecided | (drops & undecided & is_alone & possible).any(dim=1))
    for i in torch.nonzero(is_alone & ~explained).flatten().tolist():
        other = given if is_expected[i] else expected
        lowest = limits.score_threshold
        if len(other) >= limits.max_detections:
            lowest = max(lowest, float(other.scores.min()))
        if both.scores[i] > lowest + TOLERANCE:
            box = ", ".join(f"{side:.1f}" for side in both.boxes[i].tolist())
            who = "PyTorch alone finds" if is_expected[i] else "PyTorch does not find"
            where = f"a box of class {int(both.classes[i])} at ({box}), which {who}"
            yield Difference("boxes", float(both.scores[i]), where)


def _is_among(detections: Detections, others: Detections) -> Tensor:
    """(n,) bool: which of them are in `others`, up to TOLERANCE."""
    distances = _distances(detections.boxes, others.boxes)
    distances = distances.maximum((detections.scores[:, None] - others.scores).abs())
    is_same = (distances <= TOLERANCE) & (detections.classes[:, None] == others.classes)
    return is_same.any(dim=1)
