"""Class names and datasets of a config in a program that has not loaded them itself."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..config import after_loading, when_building
from ..errors import InputError
from ..logs import get_logger
from ..tasks import ALL_TASKS
from .folders import register_folders
from .labelled import has_task

logger = get_logger(__name__)


@after_loading
def keep_class_names(cfg: CfgNode) -> None:
    """Write the class names that Detectron2 knows for DATASETS.TRAIN, then TEST, into the config.

    Where none are known, those that stand there, from a dumped config, are kept.
    """
    registered = DatasetCatalog.list()
    names = [n for n in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if n in registered]
    for task in ALL_TASKS.values():
        first = next((name for name in names if has_task(name, task.name)), None)
        if first and (classes := MetadataCatalog.get(first).get(task.classes_field)):
            cfg.DATASETS[task.classes_key] = list(classes)
    name_classes(cfg)


@when_building
def register_missing_folders(cfg: CfgNode) -> None:
    """Register the DATASETS.FOLDERS that are not, as load_config does, and name the classes.

    A model can do without its data, so what is wrong with it is a warning.
    """
    registered = DatasetCatalog.list()
    names = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    missing = sorted(n for n in names if n in cfg.DATASETS.FOLDERS and n not in registered)
    if missing:
        only = cfg.clone()
        only.defrost()
        only.DATASETS.TRAIN, only.DATASETS.TEST = tuple(missing), ()
        try:
            register_folders(only)
        except InputError as e:
            logger.warning("%s", e)
    name_classes(cfg)


def name_classes(cfg: CfgNode) -> None:
    """Give the class names of the config to those of its datasets that are not registered here."""
    registered = DatasetCatalog.list()
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if name in registered:
            continue
        metadata = MetadataCatalog.get(name)
        for task in ALL_TASKS.values():
            classes = list(cfg.DATASETS[task.classes_key])
            if classes and not metadata.get(task.classes_field):
                setattr(metadata, task.classes_field, classes)
