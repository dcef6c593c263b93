"""Weight files: reading, writing, official keys, and the parts of models for both tasks."""

from .checkpointer import SafeCheckpointer
from .contents import strip_wrappers
from .files import local_file, read_state_dict, read_weights, save_state_dict
from .folder import training_checkpoints
from .official import (
    ConversionReport,
    convert_official_state_dict,
    convert_to_official,
    is_official,
)
from .parts import extract_backbone, extract_task, merge_tasks, split_parts

__all__ = [
    "ConversionReport",
    "SafeCheckpointer",
    "convert_official_state_dict",
    "convert_to_official",
    "extract_backbone",
    "extract_task",
    "is_official",
    "local_file",
    "merge_tasks",
    "read_state_dict",
    "read_weights",
    "save_state_dict",
    "split_parts",
    "strip_wrappers",
    "training_checkpoints",
]
