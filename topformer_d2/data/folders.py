"""The user's own datasets: DATASETS.FOLDERS of a config, registered when it is loaded."""

from __future__ import annotations

import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..config import after_loading
from ..errors import InputError, did_you_mean
from ..logs import get_logger
from ..tasks import TASKS
from .boxes import register_boxes
from .categories import Categories
from .class_list import read_classes
from .coco_json import class_metadata, read_coco
from .labelled import has_task
from .multitask import register_multitask
from .sem_seg import register_sem_seg

__all__ = ["read_classes", "register_folders", "use_folders"]

logger = get_logger(__name__)

_PIXELS, _OBJECTS = {"IMAGES", "LABELS", "CLASSES"}, {"IMAGES", "BOXES"}


@after_loading
def use_folders(cfg: CfgNode) -> None:
    """Register DATASETS.FOLDERS, and give the model as many classes as they have.

    The first dataset of DATASETS.TRAIN, then of DATASETS.TEST, that has pixel labels decides for
    the pixels, the first that has boxes for the objects; each if it is one of DATASETS.FOLDERS.

    Raises:
        InputError: as register_folders.
    """
    register_folders(cfg)
    registered = DatasetCatalog.list()
    names = [n for n in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if n in registered]
    for task in TASKS.values():
        first = next((name for name in names if has_task(name, task.name)), None)
        if first not in cfg.DATASETS.FOLDERS:
            continue
        # Without classes, where their file is missing.
        if classes := MetadataCatalog.get(first).get(task.classes_field):
            cfg.MODEL[task.config_node].NUM_CLASSES = len(classes)


def register_folders(cfg: CfgNode) -> None:
    """Register the entries of DATASETS.FOLDERS that TRAIN and TEST name; all where they are empty.

    The config given last decides what a name means: an entry with other files than before replaces
    the one before, and the log says so. What is the same is left as it is.

    Other entries may be a base config's, whose files need not be there. Nor need images and labels;
    where the classes cannot be read because their file is missing, a warning says so, and pictures
    number them.

    Raises:
        InputError: an entry lacks a key or has an unknown one, its name is that of a dataset which
            is not one of DATASETS.FOLDERS, or its classes file or COCO JSON cannot be used.
    """
    folders = cfg.DATASETS.FOLDERS
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) or folders):
        if name not in folders:
            continue
        entry = folders[name]
        _check_keys(name, entry)
        definition = dict(entry)
        ignore_label = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        files = [entry[key] for key in ("CLASSES", "BOXES") if key in entry]
        stamp = (*map(_stamp, files), ignore_label)
        if name in DatasetCatalog.list():
            metadata = MetadataCatalog.get(name)
            known = metadata.get("folders")
            if known is None:
                raise InputError(
                    f"DATASETS.FOLDERS.{name}: a dataset {name!r} is registered already, and is "
                    "not one of DATASETS.FOLDERS: choose another name"
                )
            if known == definition and metadata.get("stamp") == stamp:
                continue
            if known != definition:
                logger.info("dataset %r has other files than before: using %s", name, definition)
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        _register(name, definition, cfg)
        MetadataCatalog.get(name).stamp = stamp


def _stamp(path: str) -> tuple[str, int, int]:
    """Changes with the file, its content and the working directory; 0 where it is missing."""
    if not os.path.isfile(path):
        return os.path.abspath(path), 0, 0
    status = os.stat(path)
    return os.path.abspath(path), status.st_mtime_ns, status.st_size


def _check_keys(name: str, entry: Any) -> None:
    where = f"DATASETS.FOLDERS.{name}"
    takes = (
        "it takes IMAGES, LABELS and CLASSES (pixels), IMAGES and BOXES (objects), or all four "
        "(both, of the same images)"
    )
    if not isinstance(entry, CfgNode):
        raise InputError(f"{where} is {entry!r}; {takes}")
    known = sorted(_PIXELS | _OBJECTS)
    for key, value in entry.items():
        if key not in known:
            raise InputError(f"{where}.{key} is unknown{did_you_mean(key, known)}; {takes}")
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}.{key} is {value!r}; it takes a path")
        if value.startswith(("http://", "https://", "ftp://")):
            raise InputError(
                f"{where}.{key} is {value}, a web address, whose files cannot be listed: download "
                "it and name the path here"
            )
    if entry.keys() not in (_PIXELS, _OBJECTS, _PIXELS | _OBJECTS):
        raise InputError(f"{where} has {', '.join(entry) or 'no key'}; {takes}")


def _register(name: str, definition: dict, cfg: CfgNode) -> None:
    images, boxes = definition["IMAGES"], definition.get("BOXES")
    metadata: dict[str, Any] = {"folders": definition}
    if boxes:
        metadata |= _classes_of_boxes(name, boxes, cfg)
    if "LABELS" not in definition:
        register_boxes(name, boxes, images, **metadata)
        return
    labels, file = definition["LABELS"], definition["CLASSES"]
    stuff = _classes_of_pixels(name, file, cfg)
    metadata["classes_file"] = file
    if boxes:
        register_multitask(name, boxes, images, labels, stuff=stuff, **metadata)
    else:
        register_sem_seg(name, images, labels, stuff, **metadata)


def _classes_of_pixels(name: str, file: str, cfg: CfgNode) -> Categories:
    ignore_label = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    if PathManager.isfile(file):
        return read_classes(file, ignore_label)
    # A dumped config's; of another dataset, if their number is not the model's.
    known = tuple(cfg.DATASETS.STUFF_CLASSES)
    if not known or len(known) != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
        known = ()
        _warn_missing(name, "CLASSES", file)
    return Categories(known, (), tuple(range(len(known))), ignore_label)


def _classes_of_boxes(name: str, file: str, cfg: CfgNode) -> dict:
    if PathManager.isfile(file):
        return class_metadata(read_coco(file))
    known = list(cfg.DATASETS.THING_CLASSES)
    if known and len(known) == cfg.MODEL.RETINANET.NUM_CLASSES:
        return {"thing_classes": known}
    _warn_missing(name, "BOXES", file)
    return {}


def _warn_missing(name: str, key: str, file: str) -> None:
    logger.warning(
        "DATASETS.FOLDERS.%s.%s: %s is missing, so the classes have no names",
        *(name, key, os.path.abspath(file)),
    )
