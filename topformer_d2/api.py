"""What `import topformer_d2` imports, which registers it with Detectron2."""

import warnings

with warnings.catch_warnings():
    # It scripts functions when it is imported, of which newer PyTorch warns.
    warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
    import detectron2.modeling  # noqa: F401

from . import checkpoint, data, evaluation, inference, modeling
from .config import add_topformer_config, get_config
from .errors import InputError
from .inference import Predictor, Scene, label_map
from .modeling import (
    TopFormer,
    TopFormerMultiTask,
    TopFormerSegmentationHead,
    TopFormerSegmentor,
)

__all__ = [
    "InputError",
    "Predictor",
    "Scene",
    "TopFormer",
    "TopFormerMultiTask",
    "TopFormerSegmentationHead",
    "TopFormerSegmentor",
    "add_topformer_config",
    "checkpoint",
    "data",
    "evaluation",
    "get_config",
    "inference",
    "label_map",
    "modeling",
]
