from .classifier import ClassificationHead, TopFormerClassifier
from .contract import RawOutput, adapt, keeps_contract
from .multitask import TopFormerMultiTask
from .retinanet import LiteRetinaNet
from .segmentor import TopFormerSegmentor

__all__ = [
    "ClassificationHead",
    "LiteRetinaNet",
    "RawOutput",
    "TopFormerClassifier",
    "TopFormerMultiTask",
    "TopFormerSegmentor",
    "adapt",
    "keeps_contract",
]
