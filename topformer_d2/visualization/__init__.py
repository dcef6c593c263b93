"""Pictures of labels and predictions: overlays with a legend, and sheets of them."""

from .camera import predict_camera
from .overlay import add_legend, blend_labels
from .painter import Painter, draw_boxes
from .predictions import predict_files, prediction_sheet
from .samples import dataset_sheet, sample_sheet, suspect_sheet
from .sheet import make_sheet
from .video import predict_video

__all__ = [
    "Painter",
    "add_legend",
    "blend_labels",
    "dataset_sheet",
    "draw_boxes",
    "make_sheet",
    "predict_camera",
    "predict_files",
    "predict_video",
    "prediction_sheet",
    "sample_sheet",
    "suspect_sheet",
]
