"""The focal loss of a dense detector, computed without one-hot targets or maps of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Logits that are computed at once. On a CPU what is made of them fits into the cache; for a GPU it
# is more, as each kernel takes time to start.
_CHUNK_OF_CPU, _CHUNK_OF_GPU = 1 << 16, 1 << 22


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """The sum of the focal loss (Lin et al., ICCV 2017) over all anchors and classes.

    It equals fvcore's sigmoid_focal_loss of one-hot targets with reduction="sum", without the
    ignored anchors. The gradient is computed with the loss, some rows of logits at a time, so that
    nothing but the gradient is held that is as large as the logits; backward only scales it.

    Args:
        logits: (..., K) float. float16 and bfloat16 are computed in float32.
        labels: (...) int64, of each anchor: the class from 0, K for the background, or a negative
            number where it has no loss.
        alpha: weight of an anchor's own class, and 1 - alpha of all others; negative = both 1.
        gamma: power by which what is predicted well counts less.

    Returns:
        Scalar float32; float64 for float64 logits.

    Raises:
        RuntimeError: in backward, where a second derivative is asked for (create_graph=True).
    """
    return _SigmoidFocalLoss.apply(logits, labels, alpha, gamma)


class _SigmoidFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            loss, gradient = _forward(logits, labels, alpha, gamma)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "sigmoid_focal_loss has no second derivative (create_graph=True): use fvcore's, "
                "which has one"
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * factor).to(ctx.dtype), None, None, None


def _forward(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    classes = logits.shape[-1]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    of_class, of_others = (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)
    flat, labels = logits.reshape(-1, classes), labels.reshape(-1)
    counted = (labels >= 0).to(dtype)
    gradient = torch.empty(flat.shape, dtype=dtype, device=flat.device)
    loss = gradient.new_zeros(())
    chunk = _CHUNK_OF_CPU if logits.device.type == "cpu" else _CHUNK_OF_GPU
    count = max(1, chunk // classes)
    for start in range(0, len(flat), count):
        rows = slice(start, start + count)
        losses, back = _of_others(flat[rows].to(dtype), gamma)
        factors = counted[rows] * of_others
        loss += losses.sum(dim=1) @ factors
        torch.mul(back, factors[:, None], out=gradient[rows])
    # An anchor's own class was taken for another: replaced.
    anchors = torch.nonzero((labels >= 0) & (labels < classes)).squeeze(1)
    own = labels[anchors]
    values = flat[anchors, own].to(dtype)
    as_other, _ = _of_others(values, gamma)
    # The loss of a class is that of another with the opposite sign.
    as_own, back = _of_others(-values, gamma)
    loss += of_class * as_own.sum() - of_others * as_other.sum()
    gradient[anchors, own] = -of_class * back
    return loss, gradient.view(logits.shape)


def _of_others(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """The losses of classes that are not the anchor's, and their gradient, for logits x.

    With p = sigmoid(x), a loss is p^gamma softplus(x).
    """
    p = logits.sigmoid()
    cross_entropy = F.softplus(logits)
    weights = p * p if gamma == 2 else p**gamma
    # Of p^gamma: gamma p^gamma (1 - p).
    gradient = (1 - p).mul_(cross_entropy).mul_(gamma).add_(p).mul_(weights)
    return cross_entropy.mul_(weights), gradient
