"""Weight files, and the official checkpoints' keys in ours."""

from .files import SafeCheckpointer, read_state_dict, save_state_dict
from .official import ConversionReport, convert_official_state_dict

__all__ = [
    "ConversionReport",
    "SafeCheckpointer",
    "convert_official_state_dict",
    "read_state_dict",
    "save_state_dict",
]
