from .retinanet import LiteRetinaNet
from .segmentor import TopFormerSegmentor

__all__ = ["LiteRetinaNet", "TopFormerSegmentor"]
