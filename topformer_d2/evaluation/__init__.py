"""Evaluators, chosen by the evaluator_type in a dataset's metadata."""

from .builder import build_evaluator, evaluator_type
from .sem_seg import ConfusionEvaluator, format_table

__all__ = ["ConfusionEvaluator", "build_evaluator", "evaluator_type", "format_table"]
