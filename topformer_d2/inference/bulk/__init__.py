"""Prediction of very many images, in partitions that are each done exactly once."""

from .inputs import list_inputs
from .manifest import identify_model
from .partitions import PARTITION_SIZE
from .ray_engine import RayEngine
from .run import BulkResult, predict_in_bulk

__all__ = [
    "PARTITION_SIZE",
    "BulkResult",
    "RayEngine",
    "identify_model",
    "list_inputs",
    "predict_in_bulk",
]
