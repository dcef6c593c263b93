"""What segmentation heads are trained with, and how the losses of several tasks are weighted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ..config import complete_config
from ..errors import InputError, did_you_mean
from .resized_cross_entropy import resized_cross_entropy

SEGMENTATION_LOSS_REGISTRY = Registry("SEGMENTATION_LOSS")
SEGMENTATION_LOSS_REGISTRY.__doc__ = """Losses that MODEL.SEM_SEG_HEAD.LOSS may name.

Each is a class with a `from_config(cfg)`, which gives a SegmentationLoss or what works as one: a
module with `ignore_value`, and with a `forward` that takes and gives the same.
"""


class SegmentationLoss(nn.Module):
    """A loss of segmentation logits at a head's own stride; a subclass has `pixel_loss`."""

    def __init__(self, *, weight: float = 1.0, ignore_value: int = 255):
        """
        Args:
            weight: factor of the loss.
            ignore_value: the label of pixels without a loss.
        """
        super().__init__()
        self.weight = weight
        self.ignore_value = ignore_value

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SegmentationLoss:
        """By MODEL.SEM_SEG_HEAD's LOSS_WEIGHT and IGNORE_VALUE."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return cls(weight=head.LOSS_WEIGHT, ignore_value=head.IGNORE_VALUE)

    def forward(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The losses of a batch by name.

        Args:
            logits: (N, K, h, w) at the head's stride.
            targets: (N, H, W) int64, values below K or `ignore_value`.

        Returns:
            {"loss_sem_seg": scalar float32}, with further names where a subclass has further terms.
        """
        return {"loss_sem_seg": self.pixel_loss(logits, targets) * self.weight}

    def pixel_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss before its factor, a scalar float32; arguments as forward has them."""
        raise NotImplementedError


@SEGMENTATION_LOSS_REGISTRY.register()
class PixelCrossEntropy(SegmentationLoss):
    """pixel_cross_entropy, the official recipe's loss."""

    def pixel_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return pixel_cross_entropy(logits, targets, self.ignore_value)


def build_segmentation_loss(cfg: CfgNode) -> SegmentationLoss:
    """The loss that MODEL.SEM_SEG_HEAD.LOSS names.

    Raises:
        InputError: it is not registered in SEGMENTATION_LOSS_REGISTRY, or lacks what each has.
    """
    cfg = complete_config(cfg)
    name = cfg.MODEL.SEM_SEG_HEAD.LOSS
    if name not in SEGMENTATION_LOSS_REGISTRY:
        known = [registered for registered, _ in SEGMENTATION_LOSS_REGISTRY]
        hint = did_you_mean(str(name), known)
        raise InputError(f"MODEL.SEM_SEG_HEAD.LOSS is {name!r}{hint}; known: {known}")
    kind = SEGMENTATION_LOSS_REGISTRY.get(name)
    if not hasattr(kind, "from_config"):
        raise _lacks(name, "`from_config`, a class method that takes the config")
    loss = kind.from_config(cfg)
    if not hasattr(loss, "ignore_value"):
        raise _lacks(name, "`ignore_value`, the label of pixels without a loss")
    forward = getattr(type(loss), "forward", nn.Module.forward)
    if forward is nn.Module.forward:
        raise _lacks(name, "`forward`, from logits and targets to a dict of losses")
    own = getattr(type(loss), "pixel_loss", None)
    if forward is SegmentationLoss.forward and own is SegmentationLoss.pixel_loss:
        raise _lacks(name, "`pixel_loss`, from logits and targets to a scalar")
    return loss


def _lacks(name: str, what: str) -> InputError:
    return InputError(
        f"MODEL.SEM_SEG_HEAD.LOSS {name!r} has no {what}: give it one, most easily in a class that "
        "inherits from topformer_d2.modeling.SegmentationLoss and has a `pixel_loss`"
    )


def check_losses(losses: Any, name: str, *, needs_gradient: bool) -> None:
    """Whether a loss gives what training takes, as a user's own may not.

    Args:
        losses: what it gave.
        name: of its class, for the message.
        needs_gradient: whether the logits have one.

    Raises:
        InputError: it is not a dict of scalars with "loss_sem_seg", or nothing has a gradient.
    """
    key = f"MODEL.SEM_SEG_HEAD.LOSS {name!r}"
    if not isinstance(losses, Mapping) or "loss_sem_seg" not in losses:
        found = list(losses) if isinstance(losses, Mapping) else f"a {type(losses).__name__}"
        raise InputError(
            f'{key} gives {found}; forward returns a dict of scalars, with "loss_sem_seg"'
        )
    for term, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            found = (
                f"a {value.dtype} of shape {tuple(value.shape)}"
                if isinstance(value, Tensor)
                else f"a {type(value).__name__}"
            )
            raise InputError(f"{key} gives {found} as {term!r}; it takes a scalar of floats")
    if needs_gradient and not any(value.requires_grad for value in losses.values()):
        raise InputError(f"{key} gives no gradient: nothing of it depends on the logits")


def pixel_cross_entropy(logits: Tensor, targets: Tensor, ignore_value: int) -> Tensor:
    """Cross entropy of resized logits, summed over labelled pixels, divided by all pixels.

    Dividing by all pixels, ignored ones and padding included, is the official recipe's rule; a
    batch without a label gives 0 and not NaN. The resized logits are never held.

    Args:
        logits: (N, K, h, w); resized bilinearly to the targets' size, computed in float32.
        targets: (N, H, W) integers below K, or `ignore_value`.
        ignore_value: the label that has no loss.

    Returns:
        Scalar float32; float64 for float64 logits.
    """
    weights = (targets != ignore_value).to(torch.float32) / targets.numel()
    return resized_cross_entropy(logits, targets, weights)


class UncertaintyWeighting(nn.Module):
    """Losses weighted by learned uncertainties (Kendall et al., CVPR 2018, Section 3).

    With s = log sigma^2 of each loss L, a classification gives exp(-s) L + s / 2 and a regression
    exp(-s) L / 2 + s / 2. All s start at 0.
    """

    def __init__(self, names: Collection[str], regressions: Collection[str] = ()):
        """
        Args:
            names: of the losses.
            regressions: those of them that are regressions.
        """
        super().__init__()
        self.names = tuple(names)
        self.log_variance = nn.Parameter(torch.zeros(len(self.names)))
        halves = torch.tensor([0.5 if name in regressions else 1.0 for name in self.names])
        self.register_buffer("_halves", halves, persistent=False)

    def forward(self, losses: Mapping[str, Tensor], present: Collection[str]) -> dict[str, Tensor]:
        """The weighted losses, and the sum of all s / 2 as "loss_uncertainty".

        The weights go into Detectron2's event storage as "weight_sem_seg" for "loss_sem_seg".

        Args:
            losses: a scalar for each of the names; further ones stay as they are.
            present: names of the losses that have labels in this batch. The uncertainty of others
                has no gradient; it would only shrink.
        """
        factors = torch.exp(-self.log_variance) * self._halves
        for name, factor in zip(self.names, factors.tolist(), strict=True):
            get_event_storage().put_scalar(f"weight_{name.removeprefix('loss_')}", factor)
        counted = self.log_variance.new_tensor([float(name in present) for name in self.names])
        weighted = {n: f * losses[n] for n, f in zip(self.names, factors, strict=True)}
        return {**losses, **weighted, "loss_uncertainty": (counted * self.log_variance).sum() / 2}
