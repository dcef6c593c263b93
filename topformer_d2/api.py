"""What `import topformer_d2` imports, which registers it with Detectron2.

The package's `__all__` lists the names that load() takes from here.
"""

# ruff: noqa: F401

import warnings

with warnings.catch_warnings():
    # It scripts functions when it is imported, of which newer PyTorch warns.
    warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
    import detectron2.modeling

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
