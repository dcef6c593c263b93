"""From images to predictions."""

from .label_model import LabelMapModel
from .labels import label_map
from .predictor import build_predictor

__all__ = ["LabelMapModel", "build_predictor", "label_map"]
