"""From image files to label maps."""

from .files import list_images, read_image, write_image
from .predictor import build_predictor

__all__ = ["build_predictor", "list_images", "read_image", "write_image"]
