"""What a segmentation head is trained with: the interface, the registry, and what is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ...config import changed_loss_keys, complete_config
from ...errors import InputError, did_you_mean

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


def build_segmentation_loss(cfg: CfgNode) -> SegmentationLoss:
    """The loss that MODEL.SEM_SEG_HEAD.LOSS names.

    Raises:
        InputError: it is not registered in SEGMENTATION_LOSS_REGISTRY, lacks what each has, or
            reads none of MODEL.SEM_SEG_LOSS, of which the config sets some.
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
    own = getattr(kind.from_config, "__func__", None)
    # The auxiliary weight is the head's.
    unread = [key for key in changed_loss_keys(cfg) if key != "AUXILIARY_WEIGHT"]
    if unread and own is SegmentationLoss.from_config.__func__:  # type: ignore[attr-defined]
        raise InputError(
            f"MODEL.SEM_SEG_LOSS has {', '.join(unread)}, which MODEL.SEM_SEG_HEAD.LOSS {name!r} "
            "does not read: leave them out, or give it a `from_config` that reads them"
        )
    loss = kind.from_config(cfg)
    if not hasattr(loss, "ignore_value"):
        raise _lacks(name, "`ignore_value`, the label of pixels without a loss")
    forward = getattr(type(loss), "forward", nn.Module.forward)
    if forward is nn.Module.forward:
        raise _lacks(name, "`forward`, from logits and targets to a dict of losses")
    pixel_loss = getattr(type(loss), "pixel_loss", None)
    if forward is SegmentationLoss.forward and pixel_loss is SegmentationLoss.pixel_loss:
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
