"""From images to predictions."""

from ..data.scene import Scene
from .label_model import LabelMapModel
from .labels import label_map
from .prediction_files import write_predictions
from .predictor import Predictor

__all__ = ["LabelMapModel", "Predictor", "Scene", "label_map", "write_predictions"]
