"""What can be wrong with a dataset, said before training starts."""

from __future__ import annotations

import math
import os

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..config import complete_config, model_tasks
from ..errors import InputError, did_you_mean
from ..tasks import PIXELS, TASKS, Task
from .folders import register_folders
from .labelled import flag_tasks, registered_tasks, tasks_of

# Fields of Detectron2's metadata that hold a path.
_PATH_FIELDS = (
    "image_root",
    "image_dir",
    "dirname",
    "sem_seg_root",
    "gt_dir",
    "json_file",
    "classes_file",
)


def dataset_paths(name: str) -> list[str]:
    """The files and folders that a registered dataset reads, as its metadata names them."""
    metadata = MetadataCatalog.get(name)
    return [path for key in _PATH_FIELDS if (path := metadata.get(key))]


def missing_paths(name: str) -> list[str]:
    """Those of dataset_paths that do not exist, or are empty folders."""
    return [
        path
        for path in dataset_paths(name)
        if not PathManager.exists(path) or (PathManager.isdir(path) and not PathManager.ls(path))
    ]


def check_dataset_present(name: str) -> None:
    """Raise InputError where `name` is not registered or its files are not there."""
    if name not in DatasetCatalog.list():
        raise InputError(
            f"DATASETS names {name!r}, which is not registered"
            f"{did_you_mean(name, DatasetCatalog.list())}; `topformer doctor` lists what is"
        )
    missing = missing_paths(name)
    if missing and MetadataCatalog.get(name).get("folders"):
        raise InputError(
            f"DATASETS.FOLDERS.{name} names {missing[0]}, but {os.path.abspath(missing[0])} is "
            "missing or empty; a relative path starts at the working directory"
        )
    if missing:
        command = MetadataCatalog.get(name).get("prepare_command")
        root = os.getenv("DETECTRON2_DATASETS", "not set, so ./datasets")
        raise InputError(
            f"dataset {name!r} is not here: {os.path.abspath(missing[0])} is missing or empty "
            f"(DETECTRON2_DATASETS is {root})."
            + (
                f" Prepare it with: {command}"
                if command
                else " Detectron2's documentation has its layout."
            )
        )


def load_records(name: str) -> list[dict]:
    """The records of a registered dataset, each with "tasks" (see flag_tasks).

    Raises:
        InputError: its files are not as its loader needs them; Detectron2's own loaders only assert
            it, as that of Cityscapes does for labels that are not prepared.
    """
    try:
        return flag_tasks(DatasetCatalog.get(name))
    except InputError:
        raise
    except (AssertionError, KeyError, OSError, ValueError) as e:
        command = MetadataCatalog.get(name).get("prepare_command")
        fix = f". Prepare it with: {command}" if command else ""
        raise InputError(f"dataset {name!r} cannot be loaded: {e}{fix}") from e


def check_config(cfg, *, train: bool) -> None:
    """Everything about a config's datasets that can be said without reading an image.

    Args:
        cfg: a Detectron2 config with the toolkit's keys.
        train: check DATASETS.TRAIN and TRAIN_WEIGHTS as well as DATASETS.TEST.

    Raises:
        InputError: a dataset is not registered, absent, has labels for none of the model's tasks,
            or its classes or its ignored label are not the model's; or none of TRAIN has labels for
            one of the tasks; or DATASETS.TRAIN_WEIGHTS does not fit DATASETS.TRAIN.
    """
    cfg = complete_config(cfg)
    names = [*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST]
    needed = "TRAIN" if train else "TEST"
    if not cfg.DATASETS[needed]:
        raise InputError(f"DATASETS.{needed} is empty: name a registered dataset")
    register_folders(cfg)
    for name in dict.fromkeys(names):
        check_dataset_present(name)
    if train:
        train_weights(cfg)
    tasks = {name: _used_tasks(name, model_tasks(cfg)) for name in dict.fromkeys(names)}
    if train:
        _check_best_metrics(cfg, tasks)
    for name, used in tasks.items():
        for task in map(TASKS.get, used):
            if MetadataCatalog.get(name).get(task.classes_field) is None:
                load_records(name)  # a COCO JSON's classes are known once it is read
            _check_class_count(name, task, cfg.MODEL[task.config_node].NUM_CLASSES)
        if PIXELS.name in used:
            _check_ignored_label(name, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)
    for task in map(TASKS.get, model_tasks(cfg)):
        having = [name for name, used in tasks.items() if task.name in used]
        _check_same_classes(having, task.classes_field)
        if train and not any(task.name in tasks[name] for name in cfg.DATASETS.TRAIN):
            raise InputError(
                f"{cfg.MODEL.META_ARCHITECTURE} is trained on pixel labels and boxes, but none "
                f"of DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)} has {task.labels}"
            )


def _check_best_metrics(cfg, tasks: dict[str, tuple[str, ...]]) -> None:
    """Raise InputError, before the first evaluation, where DATASETS.TEST has not those metrics."""
    given = {TASKS[task].metrics: TASKS[task] for n in cfg.DATASETS.TEST for task in tasks[n]}
    for metric in cfg.TEST.BEST_METRICS if given else ():
        if metric.split("/")[-2:-1] not in [[group] for group in given]:
            example = next(iter(given.values()))
            raise InputError(
                f"TEST.BEST_METRICS names {metric!r}, but DATASETS.TEST {tuple(cfg.DATASETS.TEST)} "
                f"gives this model metrics of {sorted(given)} alone, such as "
                f"{example.metrics}/{example.main_metric}; [] keeps no best model"
            )


def train_weights(cfg) -> list[float]:
    """DATASETS.TRAIN_WEIGHTS, empty or a positive number for each of TRAIN; else InputError."""
    weights = list(complete_config(cfg).DATASETS.TRAIN_WEIGHTS)
    if weights and (
        len(weights) != len(cfg.DATASETS.TRAIN)
        or not all(isinstance(w, (int, float)) and 0 < w < math.inf for w in weights)
    ):
        raise InputError(
            f"DATASETS.TRAIN_WEIGHTS is {weights}; it takes a positive number for each of the "
            f"{len(cfg.DATASETS.TRAIN)} datasets of DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)}"
        )
    return weights


def _used_tasks(name: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a model's tasks that a dataset is used for.

    A model of one task takes every dataset for that. Where the evaluator_type does not say what a
    dataset has, its records are read.
    """
    if len(tasks) == 1:
        return tasks
    has = registered_tasks(name) or tasks_of(load_records(name))
    if not has:
        raise InputError(f"dataset {name!r} has neither pixel labels nor boxes")
    return has


def _check_class_count(name: str, task: Task, num_classes: int) -> None:
    classes = MetadataCatalog.get(name).get(task.classes_field)
    if not classes:
        raise InputError(f"dataset {name!r} has no {task.classes} ({task.classes_field})")
    if len(classes) != num_classes:
        raise InputError(
            f"{task.num_classes_key} is {num_classes}, but dataset {name!r} has "
            f"{len(classes)} classes: set it to {len(classes)}"
        )


def _check_ignored_label(name: str, ignore_value: int) -> None:
    ignored = MetadataCatalog.get(name).get("ignore_label", ignore_value)
    if ignored != ignore_value:
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {ignore_value}, but dataset {name!r} "
            f"ignores {ignored}: set it to that"
        )


def _check_same_classes(names: list[str], field: str) -> None:
    """Files written apart can list their categories differently, which no error would show."""
    first = MetadataCatalog.get(names[0]).get(field) if names else None
    for name in names[1:]:
        classes = MetadataCatalog.get(name).get(field)
        if classes != first:
            raise InputError(
                f"dataset {name!r} has the classes {classes}, but {names[0]!r} has {first}: "
                "their files must list the same categories with the same ids"
            )


def check_label_range(label: np.ndarray, num_classes: int, ignore_value: int, file: str) -> None:
    """Raise InputError, naming `file`, where a label is neither a class nor ignored.

    Args:
        label: integers of any shape.
        num_classes: valid labels are 0 .. num_classes - 1.
        ignore_value: valid too.
    """
    if label.size == 0:
        return
    bad = label[(label >= num_classes) & (label != ignore_value)]
    if bad.size == 0 and label.min() >= 0:
        return
    value = int(bad.flat[0]) if bad.size else int(label.min())
    raise InputError(
        f"{file}: label {value} is out of range; the {num_classes} classes are 0 to "
        f"{num_classes - 1}, and {ignore_value} is ignored. MODEL.SEM_SEG_HEAD.NUM_CLASSES or the "
        "preparation of the labels is wrong"
    )


def check_image_size(record: dict, size: tuple[int, int]) -> None:
    """Raise InputError where the record's annotations were made for an image of another size.

    Args:
        record: its "height" and "width" are compared, where it has them.
        size: (height, width) of its image.
    """
    recorded = record.get("height", size[0]), record.get("width", size[1])
    if recorded != size:
        raise InputError(
            f"{record['file_name']} is {size} (height, width), but its annotations are "
            f"for an image of {recorded}. Is it another file, or turned by its EXIF orientation?"
        )


def check_label_size(label: np.ndarray, size: tuple[int, int], file: str, image_file: str) -> None:
    """Raise InputError where the label `file` has not the (height, width) of its image."""
    if label.shape != size:
        turned = label.shape == size[::-1]
        hint = ". An image is turned by its EXIF orientation, a label is not" if turned else ""
        raise InputError(
            f"{image_file} is {size} (height, width) and its label {file} {label.shape}{hint}"
        )
