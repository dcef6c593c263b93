"""The user's own datasets: DATASETS.FOLDERS of a config, registered when it is loaded."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..config import after_loading
from ..errors import InputError, did_you_mean
from ..files import file_stamp
from ..logs import get_logger
from ..tasks import PIXELS, TASKS
from .categories import Categories
from .class_list import read_classes
from .formats import FORMATS, IMAGES, DatasetFormat, Paths, describe_keys, formats_of
from .labelled import has_task
from .multitask import join_labels
from .registered import register_dataset

__all__ = ["read_classes", "register_folders", "use_folders"]

logger = get_logger(__name__)


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
            is not one of DATASETS.FOLDERS, or a file that names its classes cannot be used.
    """
    folders = cfg.DATASETS.FOLDERS
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) or folders):
        if name not in folders:
            continue
        if not name:
            raise InputError("DATASETS.FOLDERS has an entry without a name: give it one")
        entry = folders[name]
        formats = _formats(name, entry)
        definition = dict(entry)
        class_files = [entry[key] for each in formats for key in each.class_keys]
        stamps = (*map(file_stamp, class_files), cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)
        if name in DatasetCatalog.list():
            metadata = MetadataCatalog.get(name)
            known = metadata.get("folders")
            if known is None:
                raise InputError(
                    f"DATASETS.FOLDERS.{name}: a dataset {name!r} is registered already, and is "
                    "not one of DATASETS.FOLDERS: choose another name"
                )
            if known == definition and metadata.get("stamp") == stamps:
                continue
            if known != definition:
                logger.info("dataset %r has other files than before: using %s", name, definition)
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        _register(name, definition, formats, cfg)
        MetadataCatalog.get(name).stamp = stamps


def _formats(name: str, entry: Any) -> tuple[DatasetFormat, ...]:
    """The formats of an entry, whose keys and values are checked."""
    where, takes = f"DATASETS.FOLDERS.{name}", f"it takes {describe_keys()}"
    if not isinstance(entry, CfgNode):
        raise InputError(f"{where} is {entry!r}; {takes}")
    known = sorted({IMAGES, *(key for each in FORMATS.values() for key in each.keys)})
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
    formats = formats_of(entry.keys())
    if not formats:
        raise InputError(f"{where} has {', '.join(entry) or 'no key'}; {takes}")
    return formats


def _register(name: str, paths: Paths, formats: tuple[DatasetFormat, ...], cfg: CfgNode) -> None:
    metadata: dict[str, Any] = {"folders": paths, "image_root": paths[IMAGES]}
    for each in formats:
        metadata |= each.metadata(paths) | _classes(name, each, paths, cfg)
    tasks = [task for each in formats for task in each.tasks]
    register_dataset(name, partial(_load, name, paths, formats), tasks, **metadata)


def _load(name: str, paths: Paths, formats: tuple[DatasetFormat, ...]) -> list[dict]:
    *labelling, listing = formats
    records = listing.records(name, paths)
    for pixels in labelling:
        sources = (paths[listing.keys[0]], paths[pixels.keys[0]])
        records = join_labels(name, records, pixels.labels(paths), *sources)
    return records


def _classes(name: str, dataset_format: DatasetFormat, paths: Paths, cfg: CfgNode) -> dict:
    """The fields of the metadata that say what the classes are."""
    ignore_label = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    missing = [key for key in dataset_format.class_keys if not PathManager.isfile(paths[key])]
    if not missing:
        return dataset_format.classes(paths, ignore_label)
    fields: dict[str, Any] = {}
    for task in map(TASKS.get, dataset_format.tasks):
        # A dumped config's; of another dataset, if their number is not the model's.
        known = tuple(cfg.DATASETS[task.classes_key])
        if len(known) != cfg.MODEL[task.config_node].NUM_CLASSES:
            known = ()
        if not known:
            key = missing[0]
            logger.warning(
                "DATASETS.FOLDERS.%s.%s: %s is missing, so the classes have no names",
                *(name, key, os.path.abspath(paths[key])),
            )
        if task is PIXELS:
            ids = tuple(range(len(known)))
            fields |= Categories(known, (), ids, ignore_label).stuff_metadata()
        elif known:
            fields[task.classes_field] = list(known)
    return fields
