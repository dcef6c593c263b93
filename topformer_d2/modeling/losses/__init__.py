"""What segmentation heads are trained with, and how the losses of several tasks are weighted."""

from .base import (
    SEGMENTATION_LOSS_REGISTRY,
    SegmentationLoss,
    build_segmentation_loss,
    check_losses,
)
from .pixel import PixelCrossEntropy, pixel_cross_entropy
from .uncertainty import UncertaintyWeighting

__all__ = [
    "SEGMENTATION_LOSS_REGISTRY",
    "PixelCrossEntropy",
    "SegmentationLoss",
    "UncertaintyWeighting",
    "build_segmentation_loss",
    "check_losses",
    "pixel_cross_entropy",
]
