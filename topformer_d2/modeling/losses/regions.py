"""Losses of whole regions, computed at the logits' resolution.

A region's loss needs all pixels of a class at once. At the labels' size that would be a number for
each class at each pixel. So the labels come to the logits' cells, as numbers of pixels by class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_counts(targets: Tensor, shape: Sequence[int], ignore_value: int) -> Tensor:
    """How many pixels of each class are in each cell of the logits.

    A pixel is in the cell that its centre is in.

    Args:
        targets: (N, H, W) integers below K, or `ignore_value`.
        shape: of the logits, N, K, h, w.
        ignore_value: the label of pixels that are not counted.

    Returns:
        (N, K, h, w) int64.
    """
    count, classes, height, width = shape
    device = targets.device
    # (2 i + 1) h / (2 H), in whole numbers.
    rows, columns = (
        ((2 * torch.arange(length, device=device) + 1) * cells).div(
            2 * length, rounding_mode="floor"
        )
        for length, cells in zip(targets.shape[1:], (height, width), strict=True)
    )
    images = torch.arange(count, device=device)[:, None, None]
    place = (images * classes * height + rows[:, None]) * width + columns
    place = place + targets.long() * (height * width)
    counts = torch.bincount(
        place[targets != ignore_value], minlength=count * classes * height * width
    )
    return counts.view(count, classes, height, width)


def dice_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """One minus the Dice coefficient (V-Net's, with squares), mean over the batch's classes.

    With the softmax s and the share t of a class among a cell's labelled pixels, of which there are
    m: 1 - 2 sum(m s t) / (sum(m s^2) + sum(m t^2)), over all cells of the batch. It is 0 where s
    is t. Classes without a pixel in the batch are left out.

    Args:
        logits: (N, K, h, w); float16 and bfloat16 are computed in float32.
        counts: what cell_counts gives.

    Returns:
        Scalar float32, or float64; 0 where nothing is labelled.
    """
    scores = _softmax(logits)
    labelled = counts.sum(dim=1, keepdim=True).to(scores.dtype)
    # A mean over the labelled pixels, so that sums stay small.
    mass = labelled / labelled.sum().clamp(min=1)
    shares = counts / labelled.clamp(min=1)
    both = (mass * scores * shares).sum(dim=(0, 2, 3))
    either = (mass * (scores.square() + shares.square())).sum(dim=(0, 2, 3))
    present = counts.sum(dim=(0, 2, 3)) > 0
    losses = (1 - 2 * both / either.where(present, 1)).where(present, 0)
    return losses.sum() / present.sum().clamp(min=1)


def lovasz_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """Lovasz-softmax (Berman et al., CVPR 2018), of the batch, mean over the batch's classes.

    The label of a cell is its most frequent class, of equal ones the first. Cells without a label
    are left out.

    Args:
        logits: (N, K, h, w); float16 and bfloat16 are computed in float32.
        counts: what cell_counts gives.

    Returns:
        Scalar float32, or float64; 0 where nothing is labelled.
    """
    labelled = counts.sum(dim=1) > 0
    labels = counts.argmax(dim=1)[labelled]
    scores = _softmax(logits).movedim(1, 0)[:, labelled]  # (K, P)
    present = torch.bincount(labels, minlength=len(scores)).nonzero()[:, 0]
    truth = labels == present[:, None]
    errors = torch.where(truth, 1 - scores[present], scores[present])
    errors, order = errors.sort(dim=1, descending=True, stable=True)
    weights = _jaccard_steps(truth.gather(1, order).to(scores.dtype))
    return (errors * weights).sum() / max(len(present), 1)


def _jaccard_steps(truth: Tensor) -> Tensor:
    """By how much each further wrong cell raises one minus the IoU; (C, P) 0 or 1 to (C, P)."""
    total = truth.sum(dim=1, keepdim=True)
    # All cells up to here are wrong: those of the class are missed, the others are added.
    intersection = total - truth.cumsum(dim=1)
    union = total + (1 - truth).cumsum(dim=1)
    losses = 1 - intersection / union
    return losses.diff(dim=1, prepend=torch.zeros_like(total))


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
