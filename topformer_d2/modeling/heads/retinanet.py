"""RetinaNet's head in depthwise-separable convolutions, for one core of a CPU."""

from __future__ import annotations

import math

from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling.anchor_generator import build_anchor_generator
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers import conv_norm, resolve_norm


class _Tower(nn.Module):
    """Depthwise-separable convolutions shared by all levels, with a norm for each level.

    Levels differ in their statistics, so that one BatchNorm for all would fit none of them.
    """

    def __init__(self, channels: int, num_convs: int, num_levels: int, norm: str):
        super().__init__()
        self.depthwise = nn.ModuleList(
            conv_norm(channels, channels, 3, groups=channels, norm="") for _ in range(num_convs)
        )
        self.pointwise = nn.ModuleList(
            Conv2d(channels, channels, 1, bias=norm == "") for _ in range(num_convs)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(get_norm(norm, channels) or nn.Identity() for _ in range(num_levels))
            for _ in range(num_convs)
        )

    def forward(self, x: Tensor, level: int) -> Tensor:
        for depthwise, pointwise, norms in zip(
            self.depthwise, self.pointwise, self.norms, strict=True
        ):
            x = F.relu(norms[level](pointwise(depthwise(x))))
        return x


class LiteRetinaNetHead(nn.Module):
    """A tower for the classes, one for the boxes, and a 1x1 convolution after each.

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
        self.cls_tower = _Tower(channels, num_convs, len(input_shape), norm)
        self.box_tower = _Tower(channels, num_convs, len(input_shape), norm)
        self.cls_score = Conv2d(channels, num_anchors * num_classes, 1)
        self.bbox_pred = Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(cls, cfg, input_shape: list[ShapeSpec]):
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
        logits = [self.cls_score(self.cls_tower(x, i)) for i, x in enumerate(features)]
        deltas = [self.bbox_pred(self.box_tower(x, i)) for i, x in enumerate(features)]
        return logits, deltas
