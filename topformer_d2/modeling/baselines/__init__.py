"""The networks that the paper compares with; importing this registers them with Detectron2."""

from .backbones import mit_backbone, timm_backbone, torchvision_backbone
from .classifier import TimmClassifier
from .detectron2_heads import SemanticFPNHead, SeparableDeepLabV3PlusHead
from .fpn import build_baseline_fpn_backbone, build_retinanet_baseline_fpn_backbone
from .heads import AllMLPHead, FCNHead, HRNetHead, LRASPPHead, PPMHead, RASPPHead
from .levels import LevelsBackbone

__all__ = [
    "AllMLPHead",
    "FCNHead",
    "HRNetHead",
    "LRASPPHead",
    "LevelsBackbone",
    "PPMHead",
    "RASPPHead",
    "SemanticFPNHead",
    "SeparableDeepLabV3PlusHead",
    "TimmClassifier",
    "build_baseline_fpn_backbone",
    "build_retinanet_baseline_fpn_backbone",
    "mit_backbone",
    "timm_backbone",
    "torchvision_backbone",
]
