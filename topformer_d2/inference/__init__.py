"""From images to label maps."""

from .predictor import build_predictor

__all__ = ["build_predictor"]
