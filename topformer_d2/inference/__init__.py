"""From images to predictions."""

from .default_predictor import build_predictor
from .label_model import LabelMapModel
from .labels import label_map
from .predictor import Predictor
from ..data.scene import Scene

__all__ = ["LabelMapModel", "Predictor", "Scene", "build_predictor", "label_map"]
