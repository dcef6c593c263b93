"""Losses that neither PyTorch nor Detectron2 has in the recipe's form."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .layers import resize


def pixel_cross_entropy(logits: Tensor, targets: Tensor, ignore_value: int) -> Tensor:
    """Cross entropy of resized logits, summed over labelled pixels, divided by all pixels.

    Dividing by all pixels, ignored ones and padding included, is the official recipe's rule; a
    batch without a label gives 0 and not NaN.

    Args:
        logits: (N, K, h, w); resized bilinearly to the targets' size, computed in float32.
        targets: (N, H, W) int64, values below K or `ignore_value`.
        ignore_value: the label that has no loss.

    Returns:
        Scalar float32.
    """
    logits = resize(logits.float(), targets.shape[-2:])
    loss = F.cross_entropy(logits, targets, ignore_index=ignore_value, reduction="sum")
    return loss / targets.numel()
