"""Files of trained models for other runtimes, each checked against the model that it came from."""

from ..inference.formats import FORMATS
from .differences import TOLERANCE, Difference
from .model import export_model

__all__ = ["FORMATS", "TOLERANCE", "Difference", "export_model"]
