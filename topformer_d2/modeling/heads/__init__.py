from .base import SegmentationHead
from .retinanet import LiteRetinaNetHead
from .segmentation import TopFormerSegmentationHead

__all__ = ["LiteRetinaNetHead", "SegmentationHead", "TopFormerSegmentationHead"]
