"""Backbones, heads and meta-architectures; importing this registers them with Detectron2."""

from .backbone import VARIANTS, TopFormer, Variant, build_topformer_backbone
from .heads import TopFormerSegmentationHead
from .losses import pixel_cross_entropy
from .meta_arch import TopFormerSegmentor

__all__ = [
    "VARIANTS",
    "TopFormer",
    "TopFormerSegmentationHead",
    "TopFormerSegmentor",
    "Variant",
    "build_topformer_backbone",
    "pixel_cross_entropy",
]
