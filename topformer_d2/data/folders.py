"""The user's own datasets: DATASETS.FOLDERS of a config, registered when it is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..config import after_loading, complete_config, model_tasks
from ..errors import InputError, about
from ..files import Stamp, file_stamp, full_path
from ..logs import get_logger
from ..tasks import ALL_TASKS, BOXES, PIXELS, TASKS, Task
from .categories import Categories
from .class_folders import ClassFolders, register_class_folders
from .class_list import read_classes
from .labelled import has_task
from .labelling import DatasetProblems, Entry, LabelledFolder
from .labelling.split_folders import describe_splits
from .output_folders import CACHE, output_of
from .plain import is_plain, plain_metadata, plain_paths, plain_records
from .registered import register_dataset

__all__ = ["read_classes", "register_folder", "register_folders", "use_folders"]

logger = get_logger(__name__)


@after_loading
def use_folders(cfg: CfgNode) -> None:
    """Register DATASETS.FOLDERS, and give the model as many classes as they have.

    The first dataset of DATASETS.TRAIN, then of DATASETS.TEST, that has pixel labels decides for
    the pixels, the first that has boxes for the objects, and the first of class folders for a
    classifier; each if it is one of DATASETS.FOLDERS.

    Raises:
        InputError: as register_folders.
    """
    register_folders(cfg)
    registered = DatasetCatalog.list()
    names = [n for n in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if n in registered]
    for task in ALL_TASKS.values():
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
        of_classes = ClassFolders.is_named(folders[name])
        kind = ClassFolders if of_classes else Entry
        entry, definition = kind.parse(name, folders[name]), dict(folders[name])
        cache = os.path.join(cfg.OUTPUT_DIR, CACHE, name)
        with_outlines = name in cfg.DATASETS.TRAIN and needs_outlines(cfg)
        stamps = (*_stamps(entry), cache, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE, with_outlines)
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
        if of_classes:
            register_class_folders(name, definition)
        else:
            register_folder(
                *(name, definition, cache),
                ignore_value=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
                with_outlines=with_outlines,
                when_missing=partial(_known_classes, name, cfg),
            )
        MetadataCatalog.get(name).stamp = stamps


def needs_outlines(cfg: CfgNode) -> bool:
    """Whether training with a config uses the outlines of objects."""
    return complete_config(cfg).INPUT.COPY_PASTE.PROB > 0 and BOXES.name in model_tasks(cfg)


def register_folder(
    name: str,
    entry: Mapping[str, Any],
    cache: str,
    *,
    ignore_value: int = 255,
    with_outlines: bool = False,
    when_missing: Callable[[str, Task], dict] | None = None,
) -> None:
    """Register one entry of DATASETS.FOLDERS, without a config.

    Args:
        name: of the dataset.
        entry: its keys.
        cache: folder for what is made of labels that are not used as they lie.
        ignore_value: the training id of pixels that are not learnt.
        with_outlines: objects have their outlines in the records, where the labels have shapes.
        when_missing: from the file that names the classes of a task, and is missing, and the task
            to the fields of Detectron2's metadata that do; None = InputError.

    Raises:
        InputError: the entry is wrong, or its labels cannot be used.
    """
    parsed = Entry.parse(name, entry)
    metadata: dict[str, Any] = {"folders": dict(entry), "image_root": parsed.images}
    folder = LabelledFolder(name, parsed, cache, ignore_value, with_outlines)
    load, fields_of = folder.records, folder.metadata
    outlined = replace(folder, with_outlines=True).records
    with about(f"DATASETS.FOLDERS.{name}"):
        lies_plain = is_plain(parsed)
    if lies_plain:
        load = partial(plain_records, name, parsed, with_outlines=with_outlines)
        outlined = partial(plain_records, name, parsed, with_outlines=True)
        fields_of = partial(plain_metadata, parsed, ignore_value)
        metadata |= plain_paths(parsed)
    else:
        _check_output(parsed, cache)
        metadata["checked_records"] = _naming_splits(name, entry, folder.checked_records)
    load = _naming_splits(name, entry, load)
    metadata["outlined_records"] = _naming_splits(name, entry, outlined)
    fields_of = _naming_splits(name, entry, fields_of)
    for task in map(TASKS.get, parsed.tasks):
        named_by = parsed.classes if parsed.lists(task.name) else parsed.path(task.name)
        if (
            when_missing is not None
            and isinstance(named_by, str)
            and not PathManager.exists(named_by)
        ):
            metadata |= when_missing(named_by, task)
        else:
            metadata |= fields_of(task.name)
    register_dataset(name, load, parsed.tasks, **metadata)


def _naming_splits(name: str, entry: Mapping[str, Any], function: Callable) -> Callable:
    """A function whose InputError has the entries to write where this one is of several splits."""

    @wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except DatasetProblems:
            raise
        except InputError as e:
            fix = describe_splits(name, entry)
            if not fix:
                raise
            raise InputError(f"{str(e).rstrip('.')}. {fix}") from e

    return call


def _check_output(entry: Entry, cache: str) -> None:
    """Raise InputError where a run would write among images or labels."""
    output = output_of(cache)
    for key, path in (("IMAGES", entry.images), ("LABELS", entry.labels), ("BOXES", entry.boxes)):
        if output and path and os.path.realpath(path) == os.path.realpath(output):
            raise InputError(
                f"OUTPUT_DIR is the folder of {key}, {path}, where what a run writes would be "
                "taken for images and labels: choose another, or one in it, such as "
                f"{os.path.join(path, 'output')}"
            )


def _stamps(entry: Entry | ClassFolders) -> list[Stamp]:
    """What changes with the files that name the classes, and with the lists of the others."""
    stamps: list[Stamp] = []
    named = (entry.root,) if isinstance(entry, ClassFolders) else (entry.labels, entry.boxes)
    for path in (entry.classes, *named):
        if isinstance(path, str) and path:
            is_folder = os.path.isdir(path)
            stamps.append((path, os.stat(path).st_mtime_ns) if is_folder else file_stamp(path))
    return stamps


def _known_classes(name: str, cfg: CfgNode, missing: str, task: Task) -> dict[str, Any]:
    """The fields of the metadata that say what the classes are, where their file is missing."""
    # A dumped config's; of another dataset, if their number is not the model's.
    known = tuple(cfg.DATASETS[task.classes_key])
    if len(known) != cfg.MODEL[task.config_node].NUM_CLASSES:
        known = ()
    if not known:
        key = next(key for key, path in cfg.DATASETS.FOLDERS[name].items() if path == missing)
        logger.warning(
            "DATASETS.FOLDERS.%s.%s: %s is missing, so the classes have no names",
            *(name, key, full_path(missing)),
        )
    if task is PIXELS:
        ids, ignored = tuple(range(len(known))), cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        return Categories(known, (), ids, ignored).stuff_metadata()
    return {task.classes_field: list(known)} if known else {}
