"""From images to predictions."""

from .labels import label_map
from .predictor import build_predictor

__all__ = ["build_predictor", "label_map"]
