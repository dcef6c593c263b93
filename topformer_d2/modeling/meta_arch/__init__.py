from .contract import RawOutput, adapt, keeps_contract
from .multitask import TopFormerMultiTask
from .retinanet import LiteRetinaNet
from .segmentor import TopFormerSegmentor

__all__ = [
    "LiteRetinaNet",
    "RawOutput",
    "TopFormerMultiTask",
    "TopFormerSegmentor",
    "adapt",
    "keeps_contract",
]
