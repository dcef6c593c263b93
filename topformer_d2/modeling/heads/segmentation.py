"""The segmentation head (paper, Section 3.4): fuse the SIM outputs at stride 8, then classify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import complete_config
from ...errors import InputError, look_up
from ..backbone.variants import get_variant
from ..layers import conv_norm
from ..losses import SegmentationLoss
from .base import SegmentationHead, check_dropout, head_args
from .fusion import FUSIONS


@SEM_SEG_HEADS_REGISTRY.register()
class TopFormerSegmentationHead(SegmentationHead, nn.Module):
    """All inputs joined at the finest one's size, 1x1 convolution, dropout, 1x1 classifier."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        norm: str = "BN",
        fusion: str = "ours",
        fuse_depthwise: bool = False,
        dropout: float = 0.1,
        loss: SegmentationLoss | None = None,
        auxiliary_weight: float = 0.0,
    ):
        """
        Args:
            input_shape: the features to fuse, all of one width; their names are looked up in the
                backbone's output.
            num_classes: K.
            norm: name for Detectron2's get_norm.
            fusion: how the features are joined, a name in FUSIONS.
            fuse_depthwise: depthwise fusing convolution (official Tiny on ADE20K) or a full one.
            dropout: probability that a whole channel is dropped in training.
            loss: of the logits in training; None = PixelCrossEntropy.
            auxiliary_weight: of the same loss of a 1x1 classifier on each feature but the finest,
                mean over them, in training; 0 = none.

        Raises:
            InputError: no features, features of differing widths, an unknown fusion, a dropout out
                of range, or an auxiliary weight with one feature.
        """
        super().__init__()
        widths = {shape.channels for shape in input_shape.values()}
        if len(widths) != 1:
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES must name features of one width, got {input_shape}"
            )
        check_dropout(dropout)
        channels = widths.pop()
        # Finest first: its size is the size of the joined map and of the logits.
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.common_stride = input_shape[self.in_features[0]].stride
        self.use_loss(loss)

        make_fusion = look_up(FUSIONS, fusion, "MODEL.SEM_SEG_HEAD.FUSION")
        self.join = make_fusion(channels, len(self.in_features), norm=norm)
        groups = channels if fuse_depthwise else 1
        self.fuse = conv_norm(channels, channels, groups=groups, norm=norm, activation=F.relu)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = Conv2d(channels, num_classes, 1)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary: nn.ModuleDict | None = None
        if auxiliary_weight:
            self.auxiliary = self._auxiliary(channels, num_classes)

    def _auxiliary(self, channels: int, num_classes: int) -> nn.ModuleDict:
        coarser = self.in_features[1:]
        if not coarser:
            raise InputError(
                f"MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT is {self.auxiliary_weight}, but "
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES has {self.in_features} alone: the auxiliary loss "
                "is of the features but the finest"
            )
        classifiers = nn.ModuleDict({name: Conv2d(channels, num_classes, 1) for name in coarser})
        for classifier in classifiers.values():
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)
        return classifiers

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        cfg = complete_config(cfg)
        head = cfg.MODEL.SEM_SEG_HEAD
        if head.FUSION == "sum" and cfg.MODEL.TOPFORMER.INJECTION != "info":
            raise InputError(
                "MODEL.SEM_SEG_HEAD.FUSION 'sum' adds outputs of the info branch alone: set "
                "MODEL.TOPFORMER.INJECTION to 'info', or leave FUSION at 'ours', which adds any"
            )
        fuse_depthwise = head.FUSE_DEPTHWISE
        if fuse_depthwise is None:
            fuse_depthwise = get_variant(cfg.MODEL.TOPFORMER.VARIANT).fuse_depthwise
        return {
            **head_args(cfg, input_shape),
            "fusion": head.FUSION,
            "fuse_depthwise": fuse_depthwise,
            "auxiliary_weight": cfg.MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT,
        }

    def start_training(
        self, features: dict[str, Tensor]
    ) -> tuple[Tensor, Callable[[Tensor | None], dict[str, Tensor]]]:
        """As SegmentationHead's; the losses have "loss_auxiliary" where it has a weight."""
        logits, main = super().start_training(features)
        if self.auxiliary is None:
            return logits, main
        others = [classify(features[name]) for name, classify in self.auxiliary.items()]

        def losses(targets: Tensor | None) -> dict[str, Tensor]:
            found = main(targets)
            further = [sum(self.losses(each, targets).values()) for each in others]
            return {**found, "loss_auxiliary": sum(further) * (self.auxiliary_weight / len(others))}

        return logits, losses

    def drop_training_parts(self) -> None:
        self.auxiliary = None

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Features (N, C, H_i, W_i) to logits (N, K, H_0, W_0) at the finest feature's stride."""
        joined = self.join([features[name] for name in self.in_features])
        return self.classifier(self.dropout(self.fuse(joined)))
