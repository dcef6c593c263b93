"""Inspection of datasets: their files, and other files in their folders."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog
from detectron2.utils.file_io import PathManager
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ...config import model_tasks
from ...errors import InputError
from ..config_checks import check_config
from ..formats.contract import Problem
from ..image_files import IMAGE_EXTENSIONS
from ..loader import init_worker
from ..packed import PackedRecords
from ..registered import check_dataset_present
from ..severity import is_error
from .findings import DatasetReport, Finding, Report, Tally, merge_tallies
from .records import Expected, inspect_record
from .sets import (
    inspect_set,
    inspect_truth,
    note_no_objects,
    note_pixels,
    note_shared,
    unused_images,
)

# Starting a process costs as much as this many small images.
_IMAGES_A_PROCESS = 32


def inspect_datasets(names: Sequence[str], cfg: CfgNode | None = None) -> Report:
    """Read every file of registered datasets, on all cores, with a progress bar.

    Args:
        names: of the datasets. An image that none of them uses is a finding.
        cfg: a config that their classes, ignored label and tasks are to fit; None = as each
            dataset's metadata and records have them.
    """
    report = Report()
    trained = set(names) & set(cfg.DATASETS.TRAIN) if cfg else set(names)
    all_records: dict[str, list[dict]] = {}
    all_expected: dict[str, Expected] = {}
    used: set[str] = set()
    roots: dict[str, DatasetReport] = {}
    for name in dict.fromkeys(names):
        dataset = DatasetReport(name)
        report.datasets.append(dataset)
        records = _load(name, dataset.tally)
        if not records:
            continue
        used.update(os.path.abspath(record["file_name"]) for record in records)
        root = MetadataCatalog.get(name).get("image_root")
        if root and PathManager.isdir(root):
            roots.setdefault(root, dataset)
        expected = (
            Expected.from_config(cfg, records, name)
            if cfg
            else Expected.from_records(records, name)
        )
        dataset.ignore_value = expected.ignore_value
        if "sem_seg" in expected.tasks:
            dataset.label_names = expected.label_names
        if "instances" in expected.tasks:
            dataset.object_names = expected.object_names
        all_records[name], all_expected[name] = records, expected
        inspect_set(name, records, expected, dataset.tally)
        inspect_truth(name, records, expected, dataset.tally)
        _inspect_all(records, expected, dataset)
        dataset.note_unseen()
    learnt = [d for d in report.datasets if d.name in trained and d.name in all_records]
    _note_learnt(learnt, all_expected, cfg is not None)
    for dataset in report.datasets:
        if dataset.name in all_records and dataset not in learnt and dataset.label_names:
            pixels, expected = dataset.tally.pixels, all_expected[dataset.name]
            note_pixels(dataset.name, pixels, expected, dataset.tally, is_whole=False)
    if cfg and learnt:
        tally = learnt[0].tally
        note_shared({d.name: all_records[d.name] for d in learnt}, all_records, tally)
    for root, dataset in roots.items():
        for path in unused_images(root, used):
            message = f"{path} has no label in a dataset that is checked here"
            dataset.tally.note("image without label", path, message)
    return report


def inspect_config(cfg: CfgNode) -> Report:
    """inspect_datasets for DATASETS.TRAIN and TEST, and whether the config fits them.

    Raises:
        InputError: the config names no dataset, or a model that is not trained here.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if not names:
        raise InputError("DATASETS.TRAIN and DATASETS.TEST are empty: name a registered dataset")
    model_tasks(cfg)
    report = inspect_datasets(names, cfg)
    try:
        check_config(cfg, train=len(cfg.DATASETS.TRAIN) > 0)
    except InputError as e:
        # Of a dataset that is not here, or cannot be loaded, its own report has said so.
        if not any(str(e) in finding.message for finding in report.all_findings):
            report.findings.append(Finding("config", "", str(e)))
    return report


def _note_learnt(
    datasets: list[DatasetReport], expected: dict[str, Expected], together: bool
) -> None:
    """Note datasets from which nothing can be learnt, each alone or as what one model learns."""
    groups = [datasets] if together else [[dataset] for dataset in datasets]
    for group in groups:
        of_pixels = [d for d in group if d.label_names]
        if of_pixels:
            what = ", ".join(d.name for d in of_pixels)
            pixels = np.sum([d.tally.pixels for d in of_pixels], axis=0)
            first = of_pixels[0]
            note_pixels(what, pixels, expected[first.name], first.tally, is_whole=True)
        of_boxes = [d for d in group if d.object_names]
        if of_boxes:
            what = ", ".join(d.name for d in of_boxes)
            objects = sum((d.tally.objects for d in of_boxes), Counter())
            note_no_objects(what, objects, of_boxes[0].tally)


def _load(name: str, tally: Tally) -> list[dict]:
    """The dataset's records; where its loader refuses, the pairs that there are."""
    try:
        check_dataset_present(name)
    except InputError as e:
        tally.note("dataset", "", str(e))
        return []
    metadata = MetadataCatalog.get(name)
    problems: list[Problem] = []
    try:
        if checked := metadata.get("checked_records"):
            # Of labels that are not used as they lie; their format has looked at all files.
            records, problems = checked()
        else:
            records = DatasetCatalog.get(name)
        if not records and not any(is_error(problem.kind) for problem in problems):
            tally.note("dataset", "", f"dataset {name!r} has no image")
    except Exception as e:  # a loader of another's may raise anything
        records = None
        reason = str(e) if isinstance(e, InputError) else f"{type(e).__name__}: {e}"
        tally.note("dataset", "", f"dataset {name!r} cannot be loaded: {reason}")
    for problem in problems:
        tally.note(*problem)
    if metadata.get("checked_records"):
        return records or []
    image_root, label_root = metadata.get("image_root"), metadata.get("sem_seg_root")
    if not (image_root and label_root):
        return records or []
    images, labels = _files(image_root, IMAGE_EXTENSIONS), _files(label_root, (".png",))
    # Images that a JSON lists may be in subfolders.
    taken = {record.get("sem_seg_file_name") for record in records or ()}
    for stem in sorted(labels.keys() - images.keys()):
        if labels[stem] in taken:
            continue
        message = f"{labels[stem]} has no image in {image_root}"
        tally.note("label without image", labels[stem], message)
    if records is not None:
        return records
    return [
        {"file_name": images[stem], "sem_seg_file_name": labels[stem]}
        for stem in sorted(images.keys() & labels.keys())
    ]


def _files(folder: str, extensions: tuple[str, ...]) -> dict[str, str]:
    """{stem: path} of a folder's files with these extensions."""
    names = (os.path.splitext(name) for name in PathManager.ls(folder))
    return {s: os.path.join(folder, s + e) for s, e in names if e.lower() in extensions}


def _inspect_all(records: list[dict], expected: Expected, dataset: DatasetReport) -> None:
    loader = DataLoader(
        MapDataset(PackedRecords(records), partial(inspect_record, expected=expected)),
        batch_size=8,
        collate_fn=merge_tallies,
        num_workers=min(os.cpu_count() or 1, len(records) // _IMAGES_A_PROCESS),
        worker_init_fn=init_worker,
    )
    with tqdm(total=len(records), desc=dataset.name, unit="image") as bar:
        with _uninterrupted():
            parts = iter(loader)  # starts the processes
        for part in parts:
            dataset.tally.add(part)
            bar.update(part.images)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end: where it falls into a fork, Python prints it and goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C goes to the main one
        return
    held_back = []
    previous = signal.signal(signal.SIGINT, lambda *_: held_back.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held_back:
        raise KeyboardInterrupt
