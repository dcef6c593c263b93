"""TopFormer (CVPR 2022) on Detectron2: dense prediction on small hardware.

Importing this package registers the backbone, the heads, the meta-architectures and the datasets
with Detectron2, so that Detectron2's own functions build and run them from a config.
"""

import warnings

try:
    # At import fvcore and Detectron2 use what newer PyTorch calls deprecated.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    import detectron2  # noqa: F401
except ImportError as e:
    raise ImportError(
        "topformer_d2 needs Detectron2, which no package index has under that name. "
        "Install it from this project's checkout with\n"
        "  python tools/install_detectron2.py\n"
        "or build its main branch as https://detectron2.readthedocs.io describes."
    ) from e

from . import checkpoint, data, evaluation, inference, modeling
from .config import add_topformer_config, get_config
from .inference import Predictor, label_map
from .modeling import (
    TopFormer,
    TopFormerMultiTask,
    TopFormerSegmentationHead,
    TopFormerSegmentor,
)

__version__ = "0.1.0"
__all__ = [
    "Predictor",
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
