"""Datasets, augmentation and loading; importing this registers the datasets with Detectron2."""

from . import (
    builtin,  # noqa: F401  (registers)
    naming,  # noqa: F401  (takes part in load_config)
    shards,  # noqa: F401  (registers how its paths are read)
)
from .augmentation import build_test_augmentation, build_train_augmentation
from .class_pixels import class_weights, count_training_pixels
from .config_checks import check_config
from .folders import register_folders
from .loader import build_test_loader, build_train_loader
from .registered import dataset_paths

__all__ = [
    "build_test_augmentation",
    "build_test_loader",
    "build_train_augmentation",
    "build_train_loader",
    "check_config",
    "class_weights",
    "count_training_pixels",
    "dataset_paths",
    "register_folders",
]
