from .fpn import (
    LitePyramid,
    TopFormerFPN,
    build_retinanet_topformer_fpn_backbone,
    build_retinanet_topformer_lite_backbone,
)
from .topformer import TopFormer, build_topformer_backbone
from .trunk import TopFormerTrunk, build_topformer_trunk
from .variants import VARIANTS, Variant

__all__ = [
    "VARIANTS",
    "LitePyramid",
    "TopFormer",
    "TopFormerFPN",
    "TopFormerTrunk",
    "Variant",
    "build_retinanet_topformer_fpn_backbone",
    "build_retinanet_topformer_lite_backbone",
    "build_topformer_backbone",
    "build_topformer_trunk",
]
