"""From images to predictions."""

from .predictor import build_predictor

__all__ = ["build_predictor"]
