"""Registered datasets: whether their files are there, and their records."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..errors import InputError, about, did_you_mean
from ..files import full_path
from ..tasks import ALL_TASKS
from .labelled import flag_tasks
from .shards import why_missing

T = TypeVar("T")

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
# Keys of an entry of DATASETS.FOLDERS that are paths; CLASSES may be names.
_PATH_KEYS = ("IMAGES", "LABELS", "BOXES", "LIST", "CLASSES", "CLASS_FOLDERS")


def register_dataset(
    name: str, load: Callable[[], list[dict]], tasks: Sequence[str], **metadata: Any
) -> None:
    """Register a dataset with Detectron2.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it.
        load: its records.
        tasks: "sem_seg", "instances" or both, in this order; or "cls".
        metadata: further fields of its Detectron2 metadata.
    """
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        # Of both, what Detectron2's own tools can evaluate; "tasks" is for this toolkit.
        evaluator_type=ALL_TASKS[tasks[-1]].evaluator_types[0],
        tasks=tuple(tasks),
        **metadata,
    )


def dataset_paths(name: str) -> list[str]:
    """The files and folders that a registered dataset reads, as its metadata names them."""
    metadata = MetadataCatalog.get(name)
    named = [metadata.get(key) for key in _PATH_FIELDS]
    own = (metadata.get("folders", {}).get(key) for key in _PATH_KEYS)
    paths = (path for path in (*named, *own) if isinstance(path, str) and path)
    return list(dict.fromkeys(paths))


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
    is_own = bool(MetadataCatalog.get(name).get("folders"))
    with about(f"DATASETS.FOLDERS.{name}") if is_own else nullcontext():
        missing = missing_paths(name)
    if missing and is_own:
        why = why_missing(missing[0]) or (
            f"{full_path(missing[0])} is missing or empty; a relative path starts at the working "
            "directory"
        )
        raise InputError(f"DATASETS.FOLDERS.{name} names {missing[0]}, but {why}")
    if missing:
        command = MetadataCatalog.get(name).get("prepare_command")
        root = os.getenv("DETECTRON2_DATASETS", "not set, so ./datasets")
        raise InputError(
            f"dataset {name!r} is not here: {full_path(missing[0])} is missing or empty "
            f"(DETECTRON2_DATASETS is {root})."
            + (
                f" Prepare it with: {command}"
                if command
                else " Detectron2's documentation has its layout."
            )
        )


def load_records(name: str, *, with_outlines: bool = False) -> list[dict]:
    """The records of a registered dataset, each with "tasks" (see flag_tasks).

    Args:
        name: of the dataset.
        with_outlines: objects have their outlines, where the labels have shapes and the dataset's
            metadata have "outlined_records", a function that loads the records so.

    Raises:
        InputError: its files are not as its loader needs them; Detectron2's own loaders only assert
            it, as that of Cityscapes does for labels that are not prepared.
    """
    load = MetadataCatalog.get(name).get("outlined_records") if with_outlines else None
    try:
        return flag_tasks(load() if load else DatasetCatalog.get(name))
    except InputError:
        raise
    except (AssertionError, KeyError, OSError, ValueError) as e:
        command = MetadataCatalog.get(name).get("prepare_command")
        fix = f". Prepare it with: {command}" if command else ""
        raise InputError(f"dataset {name!r} cannot be loaded: {e}{fix}") from e


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, or all where there are fewer, the first and the last among them."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in chosen]
