"""TopFormer (CVPR 2022) on Detectron2: dense prediction on small hardware.

Importing this package registers the backbone, the heads, the meta-architectures and the datasets
with Detectron2, so that Detectron2's own functions build and run them from a config.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a checker does not run load()
    from .api import *

__version__ = "0.1.0"
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
    "list_models",
    "modeling",
]


def load() -> None:
    """Import all that registers with Detectron2; `import topformer_d2` has done it already.

    Raises:
        ImportError: Detectron2 is missing; the message has the command that installs it.
    """
    try:
        importlib.import_module("detectron2")
    except ImportError as e:
        raise ImportError(
            f"topformer_d2 needs Detectron2, which cannot be imported ({e}). No package index has "
            "it under that name. Install it with\n"
            "  topformer install-detectron2\n"
            "or build its main branch as https://detectron2.readthedocs.io describes."
        ) from e
    api = importlib.import_module(".api", __name__)
    globals().update({name: getattr(api, name) for name in __all__})


def __getattr__(name: str) -> Any:
    """What load() has not set, as where Detectron2 is missing."""
    if name not in __all__ or f"{__name__}.api" in sys.modules:  # which asks while it is imported
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    return globals()[name]


def _is_command() -> bool:
    """Whether this process is `topformer`, `python -m topformer_d2` or a checkout's script of it.

    They load what a verb needs themselves, as PyTorch takes seconds and --help needs none of it.
    """
    if getattr(sys.modules.get("__main__"), "IS_TOPFORMER", False):
        return True
    program = sys.argv[0] if sys.argv else ""  # "-m" until Python has found the module to run
    if program == "-m":
        return __name__ in sys.orig_argv
    is_first = program in sys.orig_argv  # not so in processes that this one starts
    return is_first and os.path.basename(program) in ("topformer", "topformer.exe")


if not _is_command():
    try:
        importlib.import_module("detectron2")
    except ImportError:  # `topformer doctor` and `topformer install-detectron2` run without it
        pass
    else:
        load()
