"""How far an exported detector's boxes are from PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..inference.export_info import BoxDecoding
from .differences import TOLERANCE, Difference

# Boxes of a class that are further apart than this, in their units, are not the same box.
_SAME_BOX = 0.05
# In pixels; a side below it is taken as this long.
_LEAST_SIDE = 1e-3


@dataclass(frozen=True)
class Detections:
    """Of one image: boxes (n, 4) XYXY in pixels, scores (n,), classes (n,) integers."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Tensor) -> Detections:
        return Detections(self.boxes[index], self.scores[index], self.classes[index])


@dataclass(frozen=True)
class Candidates:
    """What PyTorch makes of the raw outputs for one image.

    Attributes:
        all: before the NMS, also those just below the lowest; their boxes are not clipped.
        units: (n, 4) of each coordinate: the anchor's width or height plus the box's, in pixels.
            Where a raw value is off by a little, a coordinate is off by at most that share of it.
        lowest: (n,) score that a candidate of its level must have: the threshold, or that of the
            last where a level has more than are taken.
        kept: (m,) indices of those after the NMS.
        size: (height, width) that the network's boxes are clipped to.
    """

    all: Detections
    units: Tensor
    lowest: Tensor
    kept: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class Limits:
    """The most that counts as the same; more where more of the raw outputs does.

    Attributes:
        boxes: of the distance of a coordinate, as a share of its unit.
        scores: of the distance of a score.
    """

    boxes: float = TOLERANCE
    scores: float = TOLERANCE


def compare_boxes(
    expected: Candidates, given: Detections, decoding: BoxDecoding, limits: Limits
) -> Iterator[Difference]:
    """The largest differences of boxes and of scores between detections that belong together.

    There are none where both have found nothing. Boxes are compared as a user sees them, clipped to
    the image, and a distance is divided by its unit (Candidates): on noise there are boxes
    that lie thousands of pixels outside or whose sides are below a pixel, and float32 gives those
    no better. What only one of the two finds counts with its score, unless a difference within the
    limits explains it:
    - its score is at the lowest of its level's candidates, or below the last of a full list;
    - it is a candidate, and its overlap with another box of its class is at the NMS's limit;
    - it is a candidate, and the NMS chose between it and one of equal score;
    - it is a candidate, and the NMS drops it beside a box that is explained so.

    Args:
        expected: PyTorch's.
        given: the exported network's, after the NMS.
        decoding: its thresholds.
        limits: of boxes and scores.
    """
    if not len(expected.kept) and not len(given):
        return
    pairs = _match(expected, given, limits)
    name = f"{int((pairs >= 0).sum())} boxes"
    boxes = Difference("boxes", 0.0, name, limits.boxes)
    scores = Difference("scores", 0.0, name, limits.scores)
    distances, gaps = _distances(expected, given)
    strangers, near = [], pairs.clone()
    for g, candidate in enumerate(pairs.tolist()):
        where = f"number {g} of {len(given)} boxes"
        if candidate < 0:  # is measured from the nearest one, if there is one
            candidate = int(distances[:, g].argmin()) if len(distances) else -1
            if candidate < 0 or distances[candidate, g] > _SAME_BOX:
                strangers.append(_difference(given, g, "PyTorch does not find", limits))
                continue
            if not (pairs == candidate).any():
                near[g] = candidate
        distance, gap = float(distances[candidate, g]), float(gaps[candidate, g])
        if distance > boxes.value:
            found = f"{where}, as a share of its side and its anchor's"
            boxes = Difference("boxes", distance, found, limits.boxes)
        if gap > scores.value:
            scores = Difference("scores", gap, where, limits.scores)
    unexplained = [
        *strangers,
        *_unexplained(expected, given, near, decoding, limits),
    ]
    yield max([boxes, *unexplained], key=lambda found: found.share)
    yield scores


def _distances(expected: Candidates, given: Detections) -> tuple[Tensor, Tensor]:
    """(n, m): of each candidate's box from each given one, in its units, and of their scores.

    Infinite where the classes differ.
    """
    sides = torch.tensor(expected.size[::-1] * 2, dtype=torch.float32)
    shown = torch.minimum(expected.all.boxes.clamp(min=0), sides)
    distances = ((shown[:, None] - given.boxes).abs() / expected.units[:, None]).amax(dim=2)
    gaps = (expected.all.scores[:, None] - given.scores).abs()
    other = expected.all.classes[:, None] != given.classes
    return tuple(
        torch.where(other | values.isnan(), float("inf"), values) for values in (distances, gaps)
    )


def _match(expected: Candidates, given: Detections, limits: Limits) -> Tensor:
    """(m,): the candidate that each given detection is, each once; -1 = none within the limits.

    Those that PyTorch keeps come before those that it does not.
    """
    pairs = torch.full((len(given),), -1)
    if not len(expected.all):
        return pairs
    distances, gaps = _distances(expected, given)
    costs = torch.maximum(distances / limits.boxes, gaps / limits.scores)
    is_kept = torch.zeros(len(costs), dtype=torch.bool)
    is_kept[expected.kept] = True
    for eligible in (is_kept, ~is_kept):
        left = costs.masked_fill(~eligible[:, None], float("inf"))
        for g in torch.nonzero(pairs < 0).flatten().tolist():
            candidate = int(left[:, g].argmin())
            if left[candidate, g] <= 1:
                left[candidate] = float("inf")
                pairs[g] = candidate
    return pairs


def _unexplained(
    expected: Candidates, given: Detections, pairs: Tensor, decoding: BoxDecoding, limits: Limits
) -> Iterator[Difference]:
    """The candidates that one of the two keeps and the limits do not explain."""
    found = pairs[pairs >= 0]
    index = torch.cat([expected.kept, found[~torch.isin(found, expected.kept)]])
    is_expected = torch.arange(len(index)) < len(expected.kept)
    is_alone = ~(is_expected & torch.isin(index, found))
    both = expected.all[index]
    is_same = both.classes[:, None] == both.classes
    overlaps = box_iou(both.boxes, both.boxes).masked_fill(~is_same, 0.0)
    doubt = _doubt(expected, given, pairs)[index]
    at_limit = (overlaps - decoding.nms_threshold).abs() <= TOLERANCE + doubt[:, None] + doubt
    drops = (overlaps > decoding.nms_threshold) | at_limit  # whichever is the better of the two
    is_tie = is_alone[:, None] & is_alone & (is_expected[:, None] != is_expected) & drops
    is_tie &= (both.scores[:, None] - both.scores).abs() <= limits.scores
    explained = ((at_limit & is_same).fill_diagonal_(False) | is_tie).any(dim=1)
    lowest = expected.lowest[index]
    for is_other, scores in ((~is_expected, both.scores[is_expected]), (is_expected, given.scores)):
        if len(scores) >= decoding.max_detections:
            lowest[is_other] = lowest[is_other].clamp(min=float(scores.min()))
    explained |= both.scores <= lowest + limits.scores
    for _ in range(len(index)):  # what depends on one that may be there or not, and so on
        before = int(explained.sum())
        explained |= (drops.fill_diagonal_(False) & is_alone & explained).any(dim=1)
        if int(explained.sum()) == before:
            break
    for i in torch.nonzero(is_alone & ~explained).flatten().tolist():
        who = "PyTorch alone finds" if is_expected[i] else "PyTorch's NMS drops"
        yield _difference(both, i, who, limits)


def _doubt(expected: Candidates, given: Detections, pairs: Tensor) -> Tensor:
    """(n,): how much the overlap of each candidate may be off, by what the boxes given are.

    Where both ends of a side are off by e, the area is off by the share 2 e / side.
    """
    found = torch.nonzero(pairs >= 0).flatten()
    if not len(found):
        return torch.zeros(len(expected.all))
    distances, _ = _distances(expected, given)
    off = distances[pairs[found], found].max() * expected.units[:, :2]
    sides = (expected.all.boxes[:, 2:] - expected.all.boxes[:, :2]).clamp(min=_LEAST_SIDE)
    return 2 * (off / sides).sum(dim=1)


def _difference(found: Detections, i: int, who: str, limits: Limits) -> Difference:
    box = ", ".join(f"{side:.1f}" for side in found.boxes[i].tolist())
    where = f"a box of class {int(found.classes[i])} at ({box}), which {who}"
    score = float(found.scores[i].nan_to_num(nan=float("inf")))
    return Difference("boxes", score, where, limits.boxes)
