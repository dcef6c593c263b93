from .segmentation import TopFormerSegmentationHead

__all__ = ["TopFormerSegmentationHead"]
