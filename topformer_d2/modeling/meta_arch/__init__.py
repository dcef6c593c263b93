from .finite import check_detector
from .multitask import TopFormerMultiTask
from .retinanet import LiteRetinaNet
from .segmentor import TopFormerSegmentor

__all__ = ["LiteRetinaNet", "TopFormerMultiTask", "TopFormerSegmentor", "check_detector"]
