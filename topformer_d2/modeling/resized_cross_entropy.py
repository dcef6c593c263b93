"""Cross entropy of bilinearly resized logits, computed without the resized logits.

At stride 8 the resized logits are 64 times the logits, and a softmax and its gradient are as large
again: most of a training step's memory and time. Here a band of rows is resized at a time, and its
gradient goes back through the resizing at once. Backward only scales the gradient.

Along a row, the resized logits between two neighbours are a + t (b - a), with equal steps of t. So
their exponentials are a geometric series: exp(a), and a factor exp(step (b - a)) for each step. Two
exponentials a neighbour take the place of one for each pixel and class.

The gradient of a pixel's loss for its K logits has three parts: a factor times the softmax, a
factor at the label's logit, and one at all logits (_Pixels). Weights, smoothed labels and the focal
factor only change these factors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .resizing_of_sides import Resizing, resizing

# Numbers in a tensor of a band, of which six are held. One thread of a CPU is fastest where they
# fit into its cache. Several threads wait for each other in each operation, and a GPU takes time to
# start one, so that theirs are larger. On a GPU the loss of 2 images of 512x512 with 150 classes
# then adds 80 MiB, where resized logits add 905.
_BAND_OF_ONE_THREAD, _BAND_OF_THREADS, _BAND_OF_GPU = 1 << 18, 1 << 20, 1 << 21
# Logits are counted from the largest of their place. exp of less than this leaves the range of the
# dtype after some steps.
_LOWEST = {torch.float32: -80.0, torch.float64: -600.0}


def resized_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """The weighted sum of the cross entropy of bilinearly resized logits over all pixels.

    It equals F.cross_entropy(F.interpolate(logits, size, mode="bilinear"), targets,
    label_smoothing=smoothing, reduction="none"), times (1 - p) ** focal_gamma with the probability
    p of the target, times the weights, summed; so does its gradient.

    Ignored pixels have the weight 0. Weights of classes, of hard pixels or of edges are weights,
    too. They are constants: they get no gradient.

    Args:
        logits: (N, K, h, w) float. float16 and bfloat16 are computed in float32.
        targets: (N, H, W) of any integer dtype, below K; not read where the weight is 0.
        weights: (N, H, W) of the logits' dtype or float32.
        smoothing: share of a label that is spread over all classes.
        focal_gamma: exponent of the focal factor; 0 = without.

    Returns:
        Scalar float32; float64 for float64 logits.

    Raises:
        RuntimeError: in backward, where a second derivative is asked for (create_graph=True).
    """
    return _ResizedCrossEntropy.apply(logits, targets, weights, smoothing, focal_gamma)


@torch.no_grad()
def resized_pixel_losses(logits: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
    """The cross entropy of bilinearly resized logits of each pixel, without a gradient.

    Args:
        logits, targets: as resized_cross_entropy takes them.
        labelled: (N, H, W) bool; targets of others are not read.

    Returns:
        (N, H, W) float32, float64 for float64 logits; 0 where nothing is labelled.
    """
    weights = labelled.to(torch.promote_types(logits.dtype, torch.float32))
    losses = torch.zeros_like(weights)
    with torch.autocast(logits.device.type, enabled=False):
        _forward(logits, targets, weights, with_gradient=False, each=losses)
    return losses


class _ResizedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        weights: Tensor,
        smoothing: float,
        focal_gamma: float,
    ) -> Tensor:
        needed = ctx.needs_input_grad[0]
        with torch.autocast(logits.device.type, enabled=False):
            loss, gradient = _forward(logits, targets, weights, needed, smoothing, focal_gamma)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None, None]:
        # Not once_differentiable, which only refuses where `factor` has a gradient: a penalty on
        # the gradient of an earlier layer would lack this loss's part.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "resized_cross_entropy has no second derivative (create_graph=True): use "
                "F.interpolate and F.cross_entropy, which have one"
            )
        (gradient,) = ctx.saved_tensors
        # Rounded once it has the scale with which mixed precision keeps small gradients.
        return (gradient * factor).to(ctx.dtype), None, None, None, None


def _forward(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    with_gradient: bool,
    smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    each: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The loss, and its gradient for the logits, both float32 or float64; None if not needed.

    Each pixel's weighted loss is written into `each`, (N, H, W), where that is given.
    """
    count, classes, height, width = logits.shape
    dtype = torch.promote_types(logits.dtype, torch.float32)
    values, weights = logits.to(dtype), weights.to(dtype)
    # The softmax does not change when a constant is subtracted at a place.
    values = F.pad(values - values.amax(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    rows, columns = (
        resizing(length, count, dtype, values.device)
        for length, count in ((height, targets.shape[1]), (width, targets.shape[2]))
    )
    is_cpu = _is_on_cpu(values)
    # A GPU is not asked, as the CPU would wait for it. Where labels are smaller than the logits, an
    # interval without an output would be left far behind by its first step.
    is_series = is_cpu and columns.step <= 1 and bool(values.amin() > _LOWEST[dtype])
    gradient = torch.zeros_like(values) if with_gradient else None
    loss = values.new_zeros(())
    band = max(1, _numbers_of_band(is_cpu) // (classes * (width + 1)))
    images = max(1, band // rows.count)
    for first in range(0, count, images):
        chosen = slice(first, first + images)
        for row in range(0, rows.count, band):
            lines = slice(row, min(row + band, rows.count))
            sources, matrix = rows.band(lines)
            resized = torch.matmul(matrix, values[chosen, :, sources])
            labels, factors = (columns.split(each[chosen, lines]) for each in (targets, weights))
            pixels = _Pixels(labels, factors, smoothing, focal_gamma)
            losses, back = _band(resized, pixels, columns, is_series, with_gradient)
            loss += losses
            if each is not None:
                each[chosen, lines] = columns.join(pixels.losses)
            if with_gradient:
                gradient[chosen, :, sources] += torch.matmul(matrix.t(), back)
    return loss, _fold_borders(gradient) if with_gradient else None


def _numbers_of_band(is_cpu: bool) -> int:
    if not is_cpu:
        return _BAND_OF_GPU
    return _BAND_OF_ONE_THREAD if torch.get_num_threads() == 1 else _BAND_OF_THREADS


def _is_on_cpu(values: Tensor) -> bool:
    return values.device.type == "cpu"


class _Pixels:
    """The pixels of a band: their losses, and the factors of their gradient for their logits.

    Attributes:
        labels: (n, slots, r, w + 1) int64.
        weights: (n, slots, r, w + 1).
        losses: of each slot so far, (n, r, w + 1).
        of_label: (n, slots, r, w + 1), what is taken from the gradient at the label's logit.
        of_all: (n, slots, r, w + 1), the same at each logit; None = 0.
    """

    def __init__(self, labels: Tensor, weights: Tensor, smoothing: float, focal_gamma: float):
        # Only a weight of 0 may stand beside a label that is not a class.
        self.labels = torch.where(weights != 0, labels, 0).long()
        self.weights = weights
        self.losses: list[Tensor] = []
        self.of_label = weights if not (smoothing or focal_gamma) else torch.zeros_like(weights)
        self.of_all = torch.zeros_like(weights) if smoothing else None
        self._smoothing, self._gamma = smoothing, focal_gamma

    def add(self, slot: int, total: Tensor, of_label: Tensor, mean: Tensor | None) -> Tensor:
        """Take up a slot; all are (n, r, w + 1).

        Args:
            slot: index.
            total: log of the sum of exp of the logits.
            of_label: the label's logit.
            mean: of the logits; None without smoothing.

        Returns:
            the factor of the softmax in the gradient.
        """
        weights = self.weights[:, slot]
        entropy = total - of_label
        if mean is None and not self._gamma:
            self.losses.append(entropy * weights)
            return weights
        smoothed, share = entropy, self._smoothing
        if mean is not None:
            smoothed = (1 - share) * entropy + share * (total - mean)
        # factor: of the smoothed loss; more: of the entropy, by which the focal factor changes.
        factor, more = weights, torch.zeros_like(weights)
        if self._gamma:
            # 0 is what rounding leaves of it, or less; below 1 a gamma would divide by that.
            missing = -torch.expm1(-entropy.clamp(min=torch.finfo(entropy.dtype).eps))
            focal = missing**self._gamma
            factor = weights * focal
            more = weights * smoothed * self._gamma * focal / missing * (1 - missing)
        self.losses.append(smoothed * factor)
        self.of_label[:, slot] = (1 - share) * factor + more
        if self.of_all is not None:
            self.of_all[:, slot] = share * factor
        return factor + more


def _band(
    resized: Tensor,
    pixels: _Pixels,
    columns: Resizing,
    is_series: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """The loss of some rows, and its gradient.

    Args:
        resized: (n, K, r, w + 2) logits, resized in their height.
        pixels: of these rows.
        columns: the resizing of the width.
        is_series: compute the exponentials as a geometric series.

    Returns:
        a scalar, and (n, K, r, w + 2) or None.
    """
    left = resized[..., :-1]
    growth = resized[..., 1:] - left
    shares = columns.shares[:, None]
    labels = pixels.labels
    of_label = left.gather(1, labels) + shares * growth.gather(1, labels)
    means = None
    if pixels.of_all is not None:
        means = left.mean(dim=1, keepdim=True) + shares * growth.mean(dim=1, keepdim=True)
    exponentials = (_series if is_series else _one_by_one)(left, growth, columns, shares)
    loss = resized.new_zeros(())
    if with_gradient:
        # Of `left` and `growth`, that is of a + t (b - a).
        at_left, at_growth = torch.zeros_like(growth), torch.zeros_like(growth)
    for slot, (powers, largest) in enumerate(exponentials):
        total = powers.sum(dim=1)
        mean = None if means is None else means[:, slot]
        weights = pixels.add(slot, total.log() + largest, of_label[:, slot], mean)
        loss += pixels.losses[-1].sum()
        if with_gradient:
            factor = (weights / total)[:, None]
            at_left.addcmul_(powers, factor)
            at_growth.addcmul_(powers, factor * shares[slot])
    if not with_gradient:
        return loss, None
    # On a GPU a slot at a time: no number is added to twice, whose order would vary. A CPU has one.
    at_once = len(shares) if _is_on_cpu(labels) else 1
    for start in range(0, len(shares), at_once):
        slots = slice(start, start + at_once)
        chosen, added = labels[:, slots], -pixels.of_label[:, slots]
        at_left.scatter_add_(1, chosen, added)
        at_growth.scatter_add_(1, chosen, added * shares[slots])
    if pixels.of_all is not None:
        each = pixels.of_all / left.shape[1]
        at_left -= each.sum(dim=1, keepdim=True)
        at_growth -= (each * shares).sum(dim=1, keepdim=True)
    gradient = torch.zeros_like(resized)
    gradient[..., :-1] += at_left.sub_(at_growth)
    gradient[..., 1:] += at_growth
    return loss, gradient


def _series(
    left: Tensor, growth: Tensor, columns: Resizing, shares: Tensor
) -> Iterator[tuple[Tensor, float]]:
    """For each slot exp of the logits (n, K, r, w + 1), changed in place, and 0."""
    powers = torch.addcmul(left, growth, columns.shares[0]).exp_()
    factor = (growth * columns.step).exp_()
    for slot in range(len(shares)):
        yield powers.mul_(factor) if slot else powers, 0.0


def _one_by_one(
    left: Tensor, growth: Tensor, columns: Resizing, shares: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each slot exp of the logits less their largest, and that (n, r, w + 1)."""
    for share in shares:
        logits = torch.addcmul(left, growth, share)
        largest = logits.amax(dim=1, keepdim=True)
        yield logits.sub_(largest).exp_(), largest[:, 0]


def _fold_borders(gradient: Tensor) -> Tensor:
    """Of values repeated at their borders (..., h + 2, w + 2) to that of the values (..., h, w)."""
    for dim in (2, 3):
        length = gradient.shape[dim] - 2
        inner = gradient.narrow(dim, 1, length)
        inner.narrow(dim, 0, 1).add_(gradient.narrow(dim, 0, 1))
        inner.narrow(dim, length - 1, 1).add_(gradient.narrow(dim, length + 1, 1))
        gradient = inner
    return gradient
