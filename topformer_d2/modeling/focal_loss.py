"""The focal losses of a dense detector, computed some logits at a time together with the gradient.

Nothing but the gradient is held that is as large as the logits, and backward only scales it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    ignored anchors. No one-hot targets are made.

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
    weights = (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)

    def of_own(values: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        # The loss of a class is that of another with the opposite sign.
        losses, gradient = _of_others(-values, gamma)
        return losses, -gradient

    return _Summed.apply(logits, partial(_by_labels, labels, of_own, weights, gamma))


def sigmoid_quality_loss(logits: Tensor, labels: Tensor, qualities: Tensor, beta: float) -> Tensor:
    """The quality focal loss (Li et al., NeurIPS 2020) summed over all anchors and classes.

    It equals `quality_focal_loss` of targets that are 0 but for the anchor's own class, where they
    are its quality, without the ignored anchors. No such targets are made.

    Args:
        logits: (..., K) float. float16 and bfloat16 are computed in float32.
        labels: (...) int64, as sigmoid_focal_loss has them.
        qualities: (...) float from 0 to 1, of each anchor that has a class; of the others it is
            not read. A constant: it gets no gradient.
        beta: 0 or more, the power of the distance between score and target.

    Returns:
        Scalar float32; float64 for float64 logits.

    Raises:
        RuntimeError: in backward, where a second derivative is asked for (create_graph=True).
    """
    flat = qualities.detach().reshape(-1)

    def of_own(values: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        return _of_targets(values, flat[anchors].to(values.dtype), beta)

    return _Summed.apply(logits, partial(_by_labels, labels, of_own, (1.0, 1.0), beta))


def quality_focal_loss(
    logits: Tensor, targets: Tensor, beta: float, *, from_logits: bool = False
) -> Tensor:
    """The sum of |y - sigmoid(x)|^beta times the binary cross entropy of x and y.

    It is the quality focal loss (Li et al., NeurIPS 2020) with a target for each logit. Where
    sigmoid(x) is y, the gradient is 0. So it is for a beta below 1, too, which has none there.

    Args:
        logits: x, float, any shape. float16 and bfloat16 are computed in float32.
        targets: y, from 0 to 1, of the same shape. A constant: it gets no gradient. A part of a
            larger map is copied.
        beta: 0 or more.
        from_logits: the targets are logits, and y is their sigmoid.

    Returns:
        Scalar float32; float64 for float64 logits.

    Raises:
        RuntimeError: in backward, where a second derivative is asked for (create_graph=True).
    """
    return _Summed.apply(logits, partial(_by_targets, targets.detach(), beta, from_logits))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, compute: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            loss, gradient = compute(logits)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the focal losses have no second derivative (create_graph=True): fvcore's "
                "sigmoid_focal_loss has one"
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * factor).to(ctx.dtype), None


def _by_labels(
    labels: Tensor,
    of_own: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    weights: tuple[float, float],
    gamma: float,
    logits: Tensor,
) -> tuple[Tensor, Tensor]:
    """Loss and gradient; `of_own` has those of the anchors' own classes, by logits and anchors."""
    classes = logits.shape[-1]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    of_class, of_others = weights
    flat, labels = logits.reshape(-1, classes), labels.reshape(-1)
    counted = (labels >= 0).to(dtype)
    gradient = torch.empty(flat.shape, dtype=dtype, device=flat.device)
    loss = gradient.new_zeros(())
    count = max(1, _chunk(logits) // classes)
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
    as_own, back = of_own(values, anchors)
    loss += of_class * as_own.sum() - of_others * as_other.sum()
    gradient[anchors, own] = of_class * back
    return loss, gradient.view(logits.shape)


def _by_targets(
    targets: Tensor, beta: float, from_logits: bool, logits: Tensor
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    flat, others = logits.reshape(-1), targets.reshape(-1)
    gradient = torch.empty(flat.shape, dtype=dtype, device=flat.device)
    loss = gradient.new_zeros(())
    chunk = _chunk(logits)
    for start in range(0, len(flat), chunk):
        part = slice(start, start + chunk)
        y = others[part].to(dtype)
        losses, gradient[part] = _of_targets(
            flat[part].to(dtype), y.sigmoid() if from_logits else y, beta
        )
        loss += losses.sum()
    return loss, gradient.view(logits.shape)


def _chunk(logits: Tensor) -> int:
    return _CHUNK_OF_CPU if logits.device.type == "cpu" else _CHUNK_OF_GPU


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


def _of_targets(logits: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The quality focal losses |p - y|^beta H of logits x with targets y, and their gradient.

    Here p = sigmoid(x), and H is the cross entropy of x and y, whose derivative is p - y.
    """
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    distance = p - targets
    # Of |p - y|^beta: beta |p - y|^(beta - 1) sign(p - y) p (1 - p).
    gradient = (1 - p).mul_(p).mul_(cross_entropy).mul_(beta)
    if beta == 2:
        weights = distance * distance
        gradient.add_(weights).mul_(distance)
    else:
        size = distance.abs()
        weights = size**beta
        # A negative power of 0 is infinite, and its sign is 0: the product must not be NaN.
        slope = size.clamp_(min=torch.finfo(size.dtype).tiny).pow_(beta - 1).mul_(distance.sign())
        gradient.mul_(slope).add_(weights * distance)
    return cross_entropy.mul_(weights), gradient
