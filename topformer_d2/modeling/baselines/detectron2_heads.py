"""Heads that Detectron2 has, with the segmentor's loss and sizes."""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
from detectron2.config import CfgNode, configurable
from detectron2.layers import DepthwiseSeparableConv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.projects.deeplab import DeepLabV3PlusHead
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import complete_config
from ...errors import InputError
from ..heads import SegmentationHead
from ..heads.base import head_args
from ..layers import conv_norm, resize
from ..losses import SegmentationLoss
from .heads import classifier


@SEM_SEG_HEADS_REGISTRY.register()
class SeparableDeepLabV3PlusHead(SegmentationHead, DeepLabV3PlusHead):
    """Detectron2's DeepLabV3PlusHead, depthwise separable, as the paper's figures have it.

    Two layers differ from Detectron2's: ASPP's projection is 3x3 and not 1x1, and the decoder is
    two separable 3x3 convolutions and not one 5x5. ASPP pools the whole map, so that images of any
    size do.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int,
        project_channels: list[int],
        dilations: list[int],
        norm: str = "BN",
        dropout: float = 0.1,
        loss: SegmentationLoss | None = None,
    ):
        """
        Args:
            input_shape: two features: the finer one goes into the decoder, the other into ASPP.
            num_classes: K.
            channels: width of ASPP's branches and of the decoder.
            project_channels: the one width that the finer feature is reduced to.
            dilations: of ASPP's three separable convolutions.
            norm: name for Detectron2's get_norm.
            dropout: rate after ASPP.
            loss: of the logits in training; None = PixelCrossEntropy.

        Raises:
            InputError: other than two features and one width.
        """
        if len(input_shape) != 2 or len(project_channels) != 1:
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES is {list(input_shape)} and PROJECT_CHANNELS "
                f"{list(project_channels)}; DeepLabV3+ takes 2 features and 1 width"
            )
        super().__init__(
            input_shape,
            project_channels=project_channels,
            aspp_dilations=dilations,
            aspp_dropout=dropout,
            decoder_channels=[channels, channels],
            common_stride=min(shape.stride for shape in input_shape.values()),
            norm=norm,
            train_size=None,
            loss_type="cross_entropy",  # Detectron2's, which is not used
            num_classes=num_classes,
            use_depthwise_separable_conv=True,
        )
        self.use_loss(loss)
        fine, coarse = (self.decoder[name] for name in self.in_features)
        coarse["project_conv"].project = conv_norm(
            5 * channels, channels, 3, norm=norm, activation=F.relu
        )
        weight_init.c2_xavier_fill(coarse["project_conv"].project)
        norms = {"norm1": norm, "norm2": norm, "activation1": F.relu, "activation2": F.relu}
        fine["fuse_conv"] = nn.Sequential(
            DepthwiseSeparableConv2d(project_channels[0] + channels, channels, **norms),
            DepthwiseSeparableConv2d(channels, channels, **norms),
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        cfg = complete_config(cfg)
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            **head_args(cfg, input_shape),
            "channels": head.CONVS_DIM,
            "project_channels": head.PROJECT_CHANNELS,
            "dilations": head.ASPP_DILATIONS,
        }


@SEM_SEG_HEADS_REGISTRY.register()
class SemanticFPNHead(SegmentationHead, SemSegFPNHead):
    """Detectron2's SemSegFPNHead for maps whose sizes are rounded up; it has no dropout.

    Its logits start near 0, as the other heads' do; Detectron2's do not.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        loss: SegmentationLoss | None = None,
        **kwargs: Any,
    ):
        """
        Args:
            input_shape: FPN's features by name.
            num_classes: K.
            conv_dims: width of the head.
            loss: of the logits in training; None = PixelCrossEntropy.
            kwargs: as for SemSegFPNHead.
        """
        super().__init__(input_shape, num_classes=num_classes, conv_dims=conv_dims, **kwargs)
        self.use_loss(loss)
        self.predictor = classifier(conv_dims, num_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        args = head_args(cfg, input_shape)
        del args["dropout"]
        head = cfg.MODEL.SEM_SEG_HEAD
        return {**args, "conv_dims": head.CONVS_DIM, "common_stride": head.COMMON_STRIDE}

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """FPN's maps by name to logits (N, K, H_0, W_0) at the finest one's size."""
        maps = [
            head(features[name])
            for name, head in zip(self.in_features, self.scale_heads, strict=True)
        ]
        # Doubling a map that was rounded up can give one row more than the finer map has.
        return self.predictor(sum(resize(x, maps[0].shape[-2:]) for x in maps))
