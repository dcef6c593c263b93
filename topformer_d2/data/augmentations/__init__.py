"""Augmentations beyond the paper's recipes; all are off in the shipped configs.

`..augmentation` has those of the recipes, and puts both together from a config.
"""

from .crop import BalancedCrop
from .cutout import CutOut
from .mixing import Mixing, Picture
from .pixels import Blur, JPEGCompression, Noise
from .warp import Warp

__all__ = [
    "BalancedCrop",
    "Blur",
    "CutOut",
    "JPEGCompression",
    "Mixing",
    "Noise",
    "Picture",
    "Warp",
]
