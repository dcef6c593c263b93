"""Backbones, heads and meta-architectures; importing this registers them with Detectron2."""

from . import baselines
from .backbone import (
    VARIANTS,
    LitePyramid,
    TopFormer,
    TopFormerFPN,
    TopFormerTrunk,
    Variant,
    build_retinanet_topformer_fpn_backbone,
    build_retinanet_topformer_lite_backbone,
    build_topformer_backbone,
    build_topformer_trunk,
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
from .meta_arch import (
    ClassificationHead,
    LiteRetinaNet,
    RawOutput,
    TopFormerClassifier,
    TopFormerMultiTask,
    TopFormerSegmentor,
    adapt,
)

__all__ = [
    "SEGMENTATION_LOSS_REGISTRY",
    "VARIANTS",
    "ClassificationHead",
    "LitePyramid",
    "LiteRetinaNet",
    "LiteRetinaNetHead",
    "RawOutput",
    "SegmentationLoss",
    "TopFormer",
    "TopFormerClassifier",
    "TopFormerFPN",
    "TopFormerMultiTask",
    "TopFormerSegmentationHead",
    "TopFormerSegmentor",
    "TopFormerTrunk",
    "UncertaintyWeighting",
    "Variant",
    "adapt",
    "baselines",
    "build_model",
    "build_retinanet_topformer_fpn_backbone",
    "build_retinanet_topformer_lite_backbone",
    "build_topformer_backbone",
    "build_topformer_trunk",
    "freeze_parts",
    "pixel_cross_entropy",
]
