"""From images to predictions."""

from ..data.scene import Scene
from .default_predictor import build_predictor
from .label_model import LabelMapModel
from .labels import label_map
from .predictor import Predictor

__all__ = ["LabelMapModel", "Predictor", "Scene", "build_predictor", "label_map"]
