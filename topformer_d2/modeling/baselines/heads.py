"""The segmentation heads that the paper compares with (Table 1).

The widths behind its figures are those of the usual implementations; each config states them by
MODEL.SEM_SEG_HEAD.CONVS_DIM.
"""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ..backbone.extractors import PPM_BINS, PyramidPooling
from ..heads import SegmentationHead
from ..heads.base import check_dropout, head_args
from ..layers import conv_norm, resize
from ..losses import SegmentationLoss


class BaselineHead(SegmentationHead, nn.Module):
    """`fuse` makes one map of the features; dropout and a 1x1 classifier follow."""

    # Features that the head takes; None = any number.
    num_inputs: int | None = None

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int,
        norm: str = "BN",
        dropout: float = 0.1,
        loss: SegmentationLoss | None = None,
    ):
        """
        Args:
            input_shape: the features by name; they are used in the order of their strides and, of
                equal strides, in the order given.
            num_classes: K.
            channels: width of the head.
            norm: name for Detectron2's get_norm.
            dropout: probability that a whole channel is dropped in training.
            loss: of the logits in training; None = PixelCrossEntropy.

        Raises:
            InputError: the head takes another number of features, or the dropout is out of range.
        """
        super().__init__()
        check_dropout(dropout)
        if len(input_shape) != (self.num_inputs or max(1, len(input_shape))):
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES is {list(input_shape)}; {type(self).__name__} "
                f"takes {self.num_inputs or 'one or more'}"
            )
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.common_stride = input_shape[self.in_features[0]].stride
        self.use_loss(loss)
        self.build([input_shape[name].channels for name in self.in_features], channels, norm)
        for module in self.modules():
            if isinstance(module, Conv2d):
                weight_init.c2_msra_fill(module)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return {**head_args(cfg, input_shape), "channels": cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM}

    def build(self, in_channels: list[int], channels: int, norm: str) -> None:
        """Make the layers of `fuse`; the arguments are the constructor's."""
        raise NotImplementedError

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Features (N, C_i, H_i, W_i), finest first, to (N, channels, H_0, W_0)."""
        raise NotImplementedError

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Features by name to logits (N, K, H_0, W_0) at the finest one's size."""
        fused = self.fuse([features[name] for name in self.in_features])
        return self.classifier(self.dropout(fused))


def classifier(channels: int, num_classes: int) -> Conv2d:
    """1x1 convolution to logits that start near 0."""
    conv = Conv2d(channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv


@SEM_SEG_HEADS_REGISTRY.register()
class LRASPPHead(BaselineHead):
    """MobileNetV3's Lite R-ASPP (Section 6.4): a gated coarse map, and logits of a finer one added.

    The coarse map is classified before it is enlarged and not after: both are linear and the
    enlargement's weights sum to 1, so the result is the same, at a quarter of the cost.
    """

    num_inputs = 2

    @configurable
    def __init__(self, input_shape: dict[str, ShapeSpec], *, num_classes: int, **kwargs: Any):
        super().__init__(input_shape, num_classes=num_classes, **kwargs)
        self.fine_classifier = classifier(input_shape[self.in_features[0]].channels, num_classes)

    def build(self, in_channels: list[int], channels: int, norm: str) -> None:
        self.project = conv_norm(in_channels[1], channels, norm=norm, activation=F.relu)
        self.gate = Conv2d(in_channels[1], channels, 1, bias=False)

    def fuse(self, features: list[Tensor]) -> Tensor:
        """At the size of the coarse map, unlike the other heads'."""
        coarse = features[1]
        gate = self.gate(F.adaptive_avg_pool2d(coarse, 1)).sigmoid()
        return self.project(coarse) * gate

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        fine = features[self.in_features[0]]
        return self.fine_classifier(fine) + resize(super().layers(features), fine.shape[-2:])


@SEM_SEG_HEADS_REGISTRY.register()
class RASPPHead(BaselineHead):
    """MobileNetV2's reduced ASPP (Section 6.3): a 1x1 convolution and global pooling, concatenated.

    The paper's figures fit the 3x3 projection that its other ASPP heads have, not a 1x1 one.
    """

    num_inputs = 1

    def build(self, in_channels: list[int], channels: int, norm: str) -> None:
        self.local = conv_norm(in_channels[0], channels, norm=norm, activation=F.relu)
        # No norm, as in Detectron2's ASPP: a batch of one would leave it a single value.
        self.pooled = Conv2d(in_channels[0], channels, 1, activation=F.relu)
        self.project = conv_norm(2 * channels, channels, 3, norm=norm, activation=F.relu)

    def fuse(self, features: list[Tensor]) -> Tensor:
        pooled = self.pooled(F.adaptive_avg_pool2d(features[0], 1))
        local = self.local(features[0])
        return self.project(torch.cat([local, pooled.expand_as(local)], dim=1))


@SEM_SEG_HEADS_REGISTRY.register()
class PPMHead(BaselineHead):
    """PSPNet's pyramid pooling: means over 1x1, 2x2, 3x3 and 6x6 regions beside the map itself."""

    num_inputs = 1

    def build(self, in_channels: list[int], channels: int, norm: str) -> None:
        self.pooling = PyramidPooling(in_channels[0], channels, bins=PPM_BINS, norm=norm)

    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.pooling(features[0])


@SEM_SEG_HEADS_REGISTRY.register()
class FCNHead(BaselineHead):
    """Two 3x3 convolutions, then a third over their result and the input."""

    num_inputs = 1

    def build(self, in_channels: list[int], channels: int, norm: str) -> None:
        width = in_channels[0]
        self.convs = nn.Sequential(
            conv_norm(width, channels, 3, norm=norm, activation=F.relu),
            conv_norm(channels, channels, 3, norm=norm, activation=F.relu),
        )
        self.merge = conv_norm(width + channels, channels, 3, norm=norm, activation=F.relu)

    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.merge(torch.cat([features[0], self.convs(features[0])], dim=1))


@SEM_SEG_HEADS_REGISTRY.register()
class HRNetHead(BaselineHead):
    """HRNetV2's: all features at the finest one's size, concatenated, and a 1x1 convolution."""

    def build(self, in_channels: list[int], channels: int, norm: str) -> None:
        self.project = conv_norm(sum(in_channels), channels, norm=norm, activation=F.relu)

    def fuse(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        return self.project(torch.cat([resize(x, size) for x in features], dim=1))


@SEM_SEG_HEADS_REGISTRY.register()
class AllMLPHead(HRNetHead):
    """SegFormer's: each feature brought to one width, then all as in HRNetHead."""

    def build(self, in_channels: list[int], channels: int, norm: str) -> None:
        self.embed = nn.ModuleList(Conv2d(width, channels, 1) for width in in_channels)
        super().build([channels] * len(in_channels), channels, norm)

    def fuse(self, features: list[Tensor]) -> Tensor:
        return super().fuse([embed(x) for embed, x in zip(self.embed, features, strict=True)])
