"""Weight files, the official checkpoints' keys in ours, and single tasks' models in joint ones."""

from .files import SafeCheckpointer, read_state_dict, read_weights, save_state_dict
from .official import ConversionReport, convert_official_state_dict
from .parts import extract_task, merge_tasks, split_parts

__all__ = [
    "ConversionReport",
    "SafeCheckpointer",
    "convert_official_state_dict",
    "extract_task",
    "merge_tasks",
    "read_state_dict",
    "read_weights",
    "save_state_dict",
    "split_parts",
]
