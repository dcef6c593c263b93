"""ONNX and OpenVINO files of trained models, each checked against the model that it came from."""

from .compare import TOLERANCE, Difference
from .model import FORMATS, export_model

__all__ = ["FORMATS", "TOLERANCE", "Difference", "export_model"]
