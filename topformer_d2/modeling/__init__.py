"""Backbones, heads and meta-architectures; importing this registers them with Detectron2."""

from . import baselines
from .backbone import (
    VARIANTS,
    LitePyramid,
    TopFormer,
    TopFormerFPN,
    Variant,
    build_retinanet_topformer_fpn_backbone,
    build_retinanet_topformer_lite_backbone,
    build_topformer_backbone,
)
from .build import build_model
from .freezing import freeze_parts
from .heads import LiteRetinaNetHead, TopFormerSegmentationHead
from .losses import (
    SEGMENTATION_LOSS_REGISTRY,
    SegmentationLoss,
    UncertaintyWeighting,
    pixel_cross_entropy,
)
from .meta_arch import LiteRetinaNet, RawOutput, TopFormerMultiTask, TopFormerSegmentor, adapt

__all__ = [
    "SEGMENTATION_LOSS_REGISTRY",
    "VARIANTS",
    "LitePyramid",
    "LiteRetinaNet",
    "LiteRetinaNetHead",
    "RawOutput",
    "SegmentationLoss",
    "TopFormer",
    "TopFormerFPN",
    "TopFormerMultiTask",
    "TopFormerSegmentationHead",
    "TopFormerSegmentor",
    "UncertaintyWeighting",
    "Variant",
    "adapt",
    "baselines",
    "build_model",
    "build_retinanet_topformer_fpn_backbone",
    "build_retinanet_topformer_lite_backbone",
    "build_topformer_backbone",
    "freeze_parts",
    "pixel_cross_entropy",
]
