"""Checks of a config against its datasets, before training starts."""

from __future__ import annotations

import math

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..config import complete_config, model_tasks
from ..errors import InputError, summarize
from ..tasks import ALL_TASKS, IMAGES, PIXELS, Task
from .folders import register_folders
from .labelled import registered_tasks, tasks_of
from .registered import check_dataset_present, load_records


def check_config(cfg: CfgNode, *, train: bool) -> None:
    """Check a config's datasets as far as possible without reading an image.

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
        for task in map(ALL_TASKS.get, used):
            if MetadataCatalog.get(name).get(task.classes_field) is None:
                load_records(name)  # a COCO JSON's classes are known once it is read
    for task in map(ALL_TASKS.get, model_tasks(cfg)):
        having = [name for name, used in tasks.items() if task.name in used]
        _check_same_classes(having, task.classes_field)
    for name, used in tasks.items():
        for task in map(ALL_TASKS.get, used):
            _check_class_count(name, task, cfg.MODEL[task.config_node].NUM_CLASSES)
        if PIXELS.name in used:
            _check_ignored_label(name, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)
    for task in map(ALL_TASKS.get, model_tasks(cfg)):
        if train and not any(task.name in tasks[name] for name in cfg.DATASETS.TRAIN):
            raise InputError(
                f"{cfg.MODEL.META_ARCHITECTURE} is trained on pixel labels and boxes, but none "
                f"of DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)} has {task.labels}"
            )


def _check_best_metrics(cfg: CfgNode, tasks: dict[str, tuple[str, ...]]) -> None:
    """Raise InputError, before the first evaluation, where DATASETS.TEST has not those metrics."""
    given = {
        ALL_TASKS[task].metrics: ALL_TASKS[task] for n in cfg.DATASETS.TEST for task in tasks[n]
    }
    for metric in cfg.TEST.BEST_METRICS if given else ():
        if metric.split("/")[-2:-1] not in [[group] for group in given]:
            example = next(iter(given.values()))
            raise InputError(
                f"TEST.BEST_METRICS names {metric!r}, but DATASETS.TEST {tuple(cfg.DATASETS.TEST)} "
                f"gives this model metrics of {sorted(given)} alone, such as "
                f"{example.metrics}/{example.main_metric}; [] keeps no best model"
            )


def train_weights(cfg: CfgNode) -> list[float]:
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
    if task is IMAGES and len(classes) == 1:
        raise InputError(
            f"dataset {name!r} has one class, {classes[0]!r}: a classifier of one class is always "
            "right; add a folder of another class"
        )
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
    named = {name: MetadataCatalog.get(name).get(field) for name in names}
    named = {name: classes for name, classes in named.items() if classes}
    if field == IMAGES.classes_field:
        _check_same_folders(named)
        return
    for name, classes in named.items():
        other, first = next(iter(named.items()))
        if classes == first:
            continue
        fix = "their files must list the same categories with the same ids"
        if all(MetadataCatalog.get(each).get("folders") for each in (name, other)):
            every = ", ".join(dict.fromkeys([*first, *classes]))
            fix += f", or add CLASSES: [{every}] to both of DATASETS.FOLDERS"
        raise InputError(
            f"dataset {name!r} has the classes {classes}, but {other!r} has {first}: {fix}"
        )


def _check_same_folders(named: dict[str, list[str]]) -> None:
    """_check_same_classes of class folders, of which there may be a thousand."""
    for name, classes in named.items():
        other, first = next(iter(named.items()))
        if classes == first:
            continue
        lacks, more = (sorted({*a} - {*b}) for a, b in ((first, classes), (classes, first)))
        said = ((lacks, "lacks"), (more, "has besides"))
        differs = [f"{verb} {summarize(n, 'folders')}" for n, verb in said if n]
        what = f"it {' and '.join(differs)}" if differs else "the same ones in another order"
        raise InputError(
            f"dataset {name!r} has other classes than {other!r}: {what}. Make their "
            "folders the same, or name all of them in the same order as CLASSES in both of "
            "DATASETS.FOLDERS"
        )
