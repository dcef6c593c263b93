"""The base of all segmentation heads: config, loss, and Detectron2's interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor

from ...config import complete_config
from ...errors import InputError
from ..layers import resolve_norm
from ..losses import PixelCrossEntropy, SegmentationLoss, build_segmentation_loss, check_losses


class SegmentationHead:
    """A mixin for heads: an nn.Module that has `layers` (features to logits) and calls `use_loss`.

    Attributes:
        loss: what it is trained with.
        ignore_value: the label of pixels without a loss.
    """

    training: bool
    layers: Callable[[dict[str, Tensor]], Tensor]

    def use_loss(self, loss: SegmentationLoss | None) -> None:
        """Train with `loss`; None = PixelCrossEntropy."""
        self.loss = loss or PixelCrossEntropy()
        self.ignore_value = self.loss.ignore_value

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Any, dict]:
        """(logits of `layers`, losses) in training, (the same logits, {}) in inference."""
        if self.training:
            logits, losses = self.start_training(features)
            return logits, losses(targets)
        return self.layers(features), {}

    def start_training(
        self, features: dict[str, Tensor]
    ) -> tuple[Tensor, Callable[[Tensor | None], dict[str, Tensor]]]:
        """Run the layers on a training batch.

        Returns:
            their logits (N, K, h, w), and the function from targets to losses.
        """
        logits = self.layers(features)
        return logits, partial(self.losses, logits)

    def drop_training_parts(self) -> None:
        """Remove what is used in training alone; a head that has such parts overrides it."""

    def losses(self, logits: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """Logits (N, K, h, w) and targets (N, H, W) int64 to scalars, as SegmentationLoss.

        Raises:
            InputError: the loss gives something else.
        """
        assert targets is not None
        losses = self.loss(logits, targets)
        check_losses(losses, type(self.loss).__name__, needs_gradient=logits.requires_grad)
        return losses


def head_args(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
    """The arguments that all heads have, from MODEL.SEM_SEG_HEAD.

    Args:
        input_shape: all that the backbone gives; IN_FEATURES chooses from it.

    Raises:
        InputError: IN_FEATURES names what the backbone does not give, or DROPOUT is out of range.
    """
    head = complete_config(cfg).MODEL.SEM_SEG_HEAD
    missing = [name for name in head.IN_FEATURES if name not in input_shape]
    if missing:
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {missing}; "
            f"the backbone gives {list(input_shape)}"
        )
    check_dropout(head.DROPOUT)
    return {
        "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
        "num_classes": head.NUM_CLASSES,
        "norm": resolve_norm(head.NORM),
        "dropout": head.DROPOUT,
        "loss": build_segmentation_loss(cfg),
    }


def check_dropout(rate: float) -> None:
    """InputError where `rate` is not from 0 to below 1."""
    if not 0 <= rate < 1:
        raise InputError(f"MODEL.SEM_SEG_HEAD.DROPOUT is {rate}; it takes 0 or more, below 1")
