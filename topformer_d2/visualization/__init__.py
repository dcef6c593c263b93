"""Pictures of labels and predictions: overlays with a legend, and sheets of them."""

from .overlay import add_legend, blend_labels
from .predictions import output_names, predict_files, prediction_sheet
from .samples import sample_sheet
from .scene import Painter, Scene, draw_boxes
from .sheet import make_sheet

__all__ = [
    "Painter",
    "Scene",
    "add_legend",
    "blend_labels",
    "draw_boxes",
    "make_sheet",
    "output_names",
    "predict_files",
    "prediction_sheet",
    "sample_sheet",
]
