"""Which pixels of a batch weigh more or have no loss: the hard ones, and those near borders."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..resized_cross_entropy import resized_pixel_losses


def hard_pixels(
    logits: Tensor,
    targets: Tensor,
    labelled: Tensor,
    *,
    share: float = 1.0,
    threshold: float = 0.0,
    minimum: float = 0.0,
) -> Tensor:
    """The labelled pixels of a batch whose class has a low probability (OHEM).

    Pixels as probable as the last one chosen are chosen as well, so that no order of equal numbers
    decides.

    Args:
        logits: (N, K, h, w), resized to the targets' size a band at a time.
        targets: (N, H, W) integers.
        labelled: (N, H, W) bool.
        share: of the labelled pixels, where `threshold` is 0.
        threshold: of the probability below which a pixel is chosen; 0 = by `share`.
        minimum: share of the labelled pixels that is chosen whatever the threshold.

    Returns:
        (N, H, W) bool.
    """
    losses = resized_pixel_losses(logits, targets, labelled)
    known = losses[labelled]
    wanted = math.ceil((minimum if threshold else share) * len(known))
    least = known.new_tensor(-math.log(threshold) if threshold else math.inf)
    if wanted:
        nth = known.kthvalue(len(known) - wanted + 1).values
        # A loss equal to the threshold's is not below it.
        return labelled & ((losses > least) | (losses >= nth))
    return labelled & (losses > least)


def near_edges(targets: Tensor, ignore_value: int, width: int) -> Tensor:
    """The pixels with a pixel of another class at most `width` rows and columns away.

    Args:
        targets: (N, H, W) integers; ignored pixels are no other class.
        ignore_value: the label of those.
        width: in pixels, 1 or more.

    Returns:
        (N, H, W) bool; of ignored pixels, too, where two classes are near.
    """
    ignored = targets == ignore_value
    # The largest and the smallest label of a window, of which the latter is negated.
    labels = targets.to(torch.float32)
    lowest = torch.full_like(labels, -math.inf)
    both = torch.stack([labels, -labels], dim=1).where(~ignored[:, None], lowest[:, None])
    side = 2 * width + 1
    both = F.max_pool2d(both, (side, 1), stride=1, padding=(width, 0))
    both = F.max_pool2d(both, (1, side), stride=1, padding=(0, width))
    return both[:, 0] > -both[:, 1]
