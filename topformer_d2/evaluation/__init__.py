"""Evaluators, chosen by the evaluator_type in a dataset's metadata."""

from .box_mistakes import BoxMistakes
from .builder import build_evaluator, evaluator_type
from .coco import BoxEvaluator, coco_results, evaluate_boxes
from .confusion import ConfusionEvaluator, format_table
from .needs import check_needs, needs_of
from .pixel_mistakes import PixelMistakes
from .top_accuracy import TopAccuracy
from .tta import SegmentationTTA, evaluate_with_tta

__all__ = [
    "BoxEvaluator",
    "BoxMistakes",
    "ConfusionEvaluator",
    "PixelMistakes",
    "SegmentationTTA",
    "TopAccuracy",
    "build_evaluator",
    "check_needs",
    "coco_results",
    "evaluate_boxes",
    "evaluate_with_tta",
    "evaluator_type",
    "format_table",
    "needs_of",
]
