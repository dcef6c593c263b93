"""How far a student's outputs are from a teacher's, and which cells of a map count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..focal_loss import quality_focal_loss
from ..layers import resize
from ..meta_arch.batching import to_device
from ..meta_arch.contract import RawOutput

Size = Sequence[int]
# From this score on, an anchor of the teacher's is one that has found something. The number is this
# toolkit's own and is from no paper.
_FOUND = 0.3
# Least norm of a feature that is scaled to the norm 1; its inverse bounds the gradient.
_LEAST_NORM = 1e-2


def softened_divergence(own: Tensor, taught: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(own / T)), mean over cells (Hinton et al., 2015).

    Args:
        own, taught: logits (N, K, h, w).
        mask: (N, h, w), 1 for the cells that count and 0 for the others.
        temperature: T.
    """
    log_own = F.log_softmax(own.float() / temperature, dim=1)
    log_taught = F.log_softmax(taught.float() / temperature, dim=1)
    each = F.kl_div(log_own, log_taught, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * _mean(each, mask)


def feature_distance(own: Tensor, taught: Tensor, mask: Tensor) -> Tensor:
    """The squared distance of features of norm 1, from 0 to 4, mean over cells.

    Args:
        own, taught: (N, C, h, w).
        mask: as for softened_divergence.
    """
    units = [F.normalize(x.float(), dim=1, eps=_LEAST_NORM) for x in (own, taught)]
    return _mean((units[0] - units[1]).square().sum(dim=1), mask)


def anchor_losses(own: RawOutput, taught: RawOutput) -> tuple[Tensor, Tensor]:
    """How far a detector's scores and boxes are from those of a teacher with the same anchors.

    An anchor of the teacher's whose best score is 0.3 or more has that score as its weight; others
    have the weight 0. Nearly all anchors are background. The teacher was never taught their boxes,
    and their small scores could add up to more than those of the objects. So they have no part in
    the loss of boxes, nor in the sum by which both losses are divided.

    - Scores: the quality focal loss (Li et al., 2020, with beta 2) of the teacher's scores, of all
      anchors.
    - Boxes: the L1 distance of the four deltas, times the weight.

    Both are sums over all anchors, those over the padding too, as RetinaNet's, divided by the sum
    of the weights, at least 1.

    Args:
        own: the student's. Of each level, the finest first, `class_logits` are (N, A K, h, w) and
            `box_deltas` (N, A 4, h, w), float, for A anchors a position and K classes. The
            channels of an anchor lie side by side.
        taught: the teacher's, with as many levels, anchors and classes, and without gradients. A
            level may be larger, (h', w'), where the teacher pads the batch further, to the right
            and below. That part is cut off.

    Returns:
        The loss of scores and that of boxes, scalars, float32.
    """
    scores, boxes, total = [], [], []
    assert own.class_logits and own.box_deltas and taught.class_logits and taught.box_deltas
    for logits, deltas, other_logits, other_deltas in zip(
        *(own.class_logits, own.box_deltas, taught.class_logits, taught.box_deltas), strict=True
    ):
        n, channels, h, w = deltas.shape
        other_logits = other_logits[..., :h, :w]
        scores.append(quality_focal_loss(logits, other_logits, 2.0, from_logits=True))
        # The sigmoid of the best logit is the best score, without a map of all scores.
        best = other_logits.reshape(n, channels // 4, -1, h, w).amax(dim=2).float().sigmoid()
        weights = best * (best >= _FOUND)
        distance = (deltas.float() - other_deltas[..., :h, :w].float()).abs()
        boxes.append((distance.reshape(n, -1, 4, h, w).sum(dim=2) * weights).sum())
        total.append(weights.sum())
    normalizer = torch.stack(total).sum().clamp(min=1)
    return torch.stack(scores).sum() / normalizer, torch.stack(boxes).sum() / normalizer


def cells_of_images(
    sizes: Sequence[Size], batch: Size, cells: Size, device: torch.device
) -> Tensor:
    """(N, h, w) float32: 1 where a cell begins inside its image, 0 in the padding.

    Args:
        sizes: (height, width) of each image.
        batch: that of the padded batch.
        cells: (h, w) of a map of the whole batch.
    """
    mask = torch.zeros(len(sizes), *cells)
    for image, size in zip(mask, sizes, strict=True):
        height, width = (
            math.ceil(int(side) * n / whole)
            for side, n, whole in zip(size, cells, batch, strict=True)
        )
        image[:height, :width] = 1
    return to_device(mask, device)


def _mean(each: Tensor, mask: Tensor) -> Tensor:
    return (each * mask).sum() / mask.sum()


class Sizes:
    """The (height, width) of a student's batch, and that to which the teacher padded it."""

    def __init__(self, batch: Size, padded: Size):
        self.batch, self.padded = tuple(batch), tuple(padded)

    def at_cells(self, taught: Tensor, cells: Size) -> Tensor:
        """A teacher's maps (N, C, h', w') at the student's cells (h, w), bilinearly."""
        if self.padded == self.batch:
            return resize(taught, cells)
        # The student's stride, a power of two. The padding is cut off where both grids agree.
        most = max(side / n for side, n in zip(self.batch, cells, strict=True))
        stride = 2 ** math.ceil(math.log2(most))
        whole = [max(n, -(-side // stride)) for n, side in zip(cells, self.padded, strict=True)]
        return resize(taught, whole)[..., : cells[0], : cells[1]]
