"""RetinaNet's head in depthwise-separable convolutions, for one core of a CPU."""

from __future__ import annotations

import math
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from torch import Tensor, nn

from ..layers import DepthwiseSeparable, resolve_norm


class LiteRetinaNetHead(nn.Module):
    """Depthwise-separable towers for classes and boxes; the levels share all but the norms.

    Inputs and outputs are those of Detectron2's RetinaNetHead.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        num_convs: int = 2,
        norm: str = "BN",
        prior_prob: float = 0.01,
    ):
        """
        Args:
            input_shape: of the levels, all of one width.
            num_classes: K.
            num_anchors: A, at each position of each level.
            num_convs: depthwise-separable convolutions of a tower.
            norm: name for Detectron2's get_norm.
            prior_prob: score of each class at the start (RetinaNet, Section 4.1).
        """
        super().__init__()
        channels = input_shape[0].channels
        self.cls_tower, self.box_tower = (
            nn.ModuleList(
                DepthwiseSeparable(channels, channels, norm=norm, num_levels=len(input_shape))
                for _ in range(num_convs)
            )
            for _ in range(2)
        )
        self.cls_score = Conv2d(channels, num_anchors * num_classes, 1)
        self.bbox_pred = Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        keys = cfg.MODEL.RETINANET
        return {
            "input_shape": input_shape,
            "num_classes": keys.NUM_CLASSES,
            "num_anchors": build_anchor_generator(cfg, input_shape).num_anchors[0],
            "num_convs": keys.NUM_CONVS,
            "norm": resolve_norm(keys.NORM),
            "prior_prob": keys.PRIOR_PROB,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (N, C, Hi, Wi) to logits (N, A K, Hi, Wi) and box deltas (N, A 4, Hi, Wi)."""
        logits, deltas = [], []
        for level, feature in enumerate(features):
            classes = boxes = feature
            for conv in self.cls_tower:
                classes = conv(classes, level)
            for conv in self.box_tower:
                boxes = conv(boxes, level)
            logits.append(self.cls_score(classes))
            deltas.append(self.bbox_pred(boxes))
        return logits, deltas
