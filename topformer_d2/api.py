"""What `import topformer_d2` imports, which registers it with Detectron2.

The package's `__all__` lists the names that load() takes from here.
"""

# ruff: noqa: F401
# "import A as A" says to type checkers that A is there to be imported from here.

import warnings

with warnings.catch_warnings():
    # It scripts functions when it is imported, of which newer PyTorch warns.
    warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
    import detectron2.modeling

from . import checkpoint as checkpoint
from . import data as data
from . import evaluation as evaluation
from . import inference as inference
from . import modeling as modeling
from .config import add_topformer_config as add_topformer_config
from .config import get_config as get_config
from .config import list_models as list_models
from .errors import InputError as InputError
from .inference import Predictor as Predictor
from .inference import Scene as Scene
from .inference import label_map as label_map
from .modeling import TopFormer as TopFormer
from .modeling import TopFormerMultiTask as TopFormerMultiTask
from .modeling import TopFormerSegmentationHead as TopFormerSegmentationHead
from .modeling import TopFormerSegmentor as TopFormerSegmentor
