"""The cross entropy of pixels, and what the config adds to it for rare classes and edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ...config import complete_config
from ...errors import InputError
from ..resized_cross_entropy import resized_cross_entropy
from .base import SEGMENTATION_LOSS_REGISTRY, SegmentationLoss
from .regions import cell_counts, dice_loss, lovasz_loss
from .selection import hard_pixels, near_edges


@SEGMENTATION_LOSS_REGISTRY.register()
class PixelCrossEntropy(SegmentationLoss):
    """pixel_cross_entropy, the official recipe's loss; each argument but the first two adds to it.

    The loss of a pixel is its cross entropy with smoothed labels, times (1 - p) ** focal_gamma,
    times its weights (of its class, near an edge, and 1 or 0 as a hard pixel). As without weights,
    the sum is divided by the number of all pixels.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        weight: float = 1.0,
        ignore_value: int = 255,
        class_weights: Sequence[float] = (),
        smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        hard_share: float = 1.0,
        hard_threshold: float = 0.0,
        hard_minimum: float = 0.05,
        edge_weight: float = 1.0,
        edge_width: int = 3,
        dice_weight: float = 0.0,
        lovasz_weight: float = 0.0,
    ):
        """
        Args:
            weight: factor of all terms.
            ignore_value: the label of pixels without a loss.
            class_weights: K of them; empty = each is 1.
            smoothing: share of each label that is spread over all classes.
            focal_gamma: exponent of the focal factor; 0 = none.
            hard_share, hard_threshold, hard_minimum: as hard_pixels takes them.
            edge_weight: weight of pixels near a border between two classes.
            edge_width: as near_edges takes it.
            dice_weight, lovasz_weight: of dice_loss and lovasz_loss; 0 = without.
        """
        super().__init__(weight=weight, ignore_value=ignore_value)
        given = torch.tensor([*class_weights], dtype=torch.float32) if len(class_weights) else None
        # Not in checkpoints: the run's config.yaml has them.
        self.register_buffer("class_weights", given, persistent=False)
        self.smoothing = smoothing
        self.focal_gamma = focal_gamma
        self.hard_share = hard_share
        self.hard_threshold = hard_threshold
        self.hard_minimum = hard_minimum
        self.edge_weight = edge_weight
        self.edge_width = edge_width
        self.dice_weight = dice_weight
        self.lovasz_weight = lovasz_weight
        # Of a config whose CLASS_WEIGHTS_FROM is not computed yet; a model that only predicts has
        # no need of it.
        self.missing_weights = ""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SegmentationLoss:
        """By MODEL.SEM_SEG_LOSS, and MODEL.SEM_SEG_HEAD's LOSS_WEIGHT and IGNORE_VALUE.

        Raises:
            InputError: MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS are not as many as the classes, or all 0.
        """
        model = complete_config(cfg).MODEL
        head, keys = model.SEM_SEG_HEAD, model.SEM_SEG_LOSS
        weights = list(keys.CLASS_WEIGHTS)
        if weights and len(weights) != head.NUM_CLASSES:
            raise InputError(
                f"MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS has {len(weights)} numbers; it takes "
                f"{head.NUM_CLASSES}, one for each of MODEL.SEM_SEG_HEAD.NUM_CLASSES"
            )
        if weights and not any(weights):
            raise InputError(
                "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS are all 0, with which nothing is trained: give "
                "the classes to learn a weight above 0"
            )
        loss = cls(
            weight=head.LOSS_WEIGHT,
            ignore_value=head.IGNORE_VALUE,
            class_weights=weights,
            smoothing=keys.SMOOTHING,
            focal_gamma=keys.FOCAL_GAMMA,
            hard_share=keys.HARD_SHARE,
            hard_threshold=keys.HARD_THRESHOLD,
            hard_minimum=keys.HARD_MINIMUM,
            edge_weight=keys.EDGE_WEIGHT,
            edge_width=keys.EDGE_WIDTH,
            dice_weight=keys.DICE_WEIGHT,
            lovasz_weight=keys.LOVASZ_WEIGHT,
        )
        loss.missing_weights = "" if weights else keys.CLASS_WEIGHTS_FROM
        return loss

    def forward(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """As SegmentationLoss, with "loss_dice" and "loss_lovasz" where they have a weight.

        Raises:
            InputError: the config's CLASS_WEIGHTS_FROM was not computed.
        """
        losses = super().forward(logits, targets)
        if self.dice_weight or self.lovasz_weight:
            counts = cell_counts(targets, logits.shape, self.ignore_value)
        if self.dice_weight:
            losses["loss_dice"] = dice_loss(logits, counts) * (self.weight * self.dice_weight)
        if self.lovasz_weight:
            factor = self.weight * self.lovasz_weight
            losses["loss_lovasz"] = lovasz_loss(logits, counts) * factor
        return losses

    def pixel_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.missing_weights:
            raise InputError(
                f"MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM is {self.missing_weights!r}, but "
                "CLASS_WEIGHTS is empty: `topformer train`, setup_run and Trainer compute them "
                "from DATASETS.TRAIN, and write them into the config"
            )
        return resized_cross_entropy(
            *(logits, targets, self.pixel_weights(logits, targets)),
            smoothing=self.smoothing,
            focal_gamma=self.focal_gamma,
        )

    def pixel_weights(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(N, H, W) weights, divided by the number of all pixels; arguments as forward has them."""
        labelled = targets != self.ignore_value
        weights = labelled.to(torch.promote_types(logits.dtype, torch.float32)) / targets.numel()
        if self.class_weights is not None:
            weights *= self.class_weights[targets.where(labelled, 0)]
        if self.edge_weight != 1:
            edges = near_edges(targets, self.ignore_value, self.edge_width)
            weights = torch.where(edges, weights * self.edge_weight, weights)
        if self.hard_share < 1 or self.hard_threshold > 0:
            weights *= hard_pixels(
                *(logits.detach(), targets, labelled),
                share=self.hard_share,
                threshold=self.hard_threshold,
                minimum=self.hard_minimum,
            )
        return weights


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
