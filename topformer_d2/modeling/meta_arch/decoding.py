"""A dense detector's raw outputs to boxes, as RetinaNet does it, but faster.

At 80 classes and 512x512 there are 3.9 million scores, and Detectron2's RetinaNet reorders,
squashes and compares each of them. Here logits are compared where they lie, and only those above
the threshold are touched again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor


def decode_level(
    anchors: Tensor,
    logits: Tensor,
    deltas: Tensor,
    transform: Box2BoxTransform,
    *,
    num_classes: int,
    score_threshold: float,
    topk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates of one level of one image.

    Args:
        anchors: (H W A, 4).
        logits: (A K, H, W).
        deltas: (A 4, H, W).
        transform: that the deltas are of.
        num_classes: K.
        score_threshold: of the scores that count.
        topk: candidates at most.

    Returns:
        boxes (n, 4), scores (n,), classes (n,).
    """
    num_positions = logits.shape[-2] * logits.shape[-1]
    num_anchors = logits.shape[0] // num_classes
    flat = logits.reshape(-1)
    above = torch.nonzero(flat > _logit(score_threshold)).squeeze(1)
    values = flat[above].float()
    values, order = values.topk(_at_most(topk, values))
    # Not torch.unravel_index, which can be neither traced nor exported.
    row, position = _divmod(above[order], num_positions)
    anchor, category = _divmod(row, num_classes)
    boxes = transform.apply_deltas(
        deltas.reshape(num_anchors, 4, num_positions)[anchor, :, position].float(),
        anchors[position * num_anchors + anchor],
    )
    return boxes, values.sigmoid(), category


def best_boxes(
    levels: Sequence[tuple[Tensor, ...]], *, nms_threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The candidates of all levels (decode_level) after NMS within each class, best first.

    Args:
        levels: boxes, scores and classes of each.
        nms_threshold: IoU above which the worse of two boxes is dropped.
        most: that are kept.
    """
    boxes, scores, classes = (torch.cat(parts) for parts in zip(*levels, strict=True))
    keep = batched_nms(boxes, scores, classes, nms_threshold)[:most]
    return boxes[keep], scores[keep], classes[keep]


def _logit(score: float) -> float:
    if 0 < score < 1:
        return math.log(score / (1 - score))
    return -math.inf if score <= 0 else math.inf


def _divmod(index: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    """Of int64 indices, 0 or more."""
    return torch.div(index, divisor, rounding_mode="floor"), index % divisor


def _at_most(limit: int, values: Tensor) -> int:
    """`limit` or the number of values, whichever is less; a trace computes it for its own input."""
    if torch.jit.is_tracing():
        return torch.minimum(torch.tensor(limit), torch._shape_as_tensor(values)[0])
    return min(limit, len(values))
