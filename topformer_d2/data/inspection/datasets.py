"""All of a dataset's files, or some of them, and what its folders hold besides."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
from detectron2.data import DatasetCatalog, DatasetFromList, MapDataset, MetadataCatalog
from detectron2.utils.file_io import PathManager
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ...config import model_tasks
from ...errors import InputError
from ..checks import check_config, check_dataset_present, load_records
from ..images import IMAGE_EXTENSIONS
from ..loader import init_worker
from .findings import DatasetReport, Finding, Report, Tally
from .records import Expected, inspect_record

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Starting a process costs as much as this many small images.
_IMAGES_A_PROCESS = 32


def inspect_datasets(names: Sequence[str], cfg=None) -> Report:
    """Read every file of registered datasets, on all cores, with a progress bar.

    Args:
        names: of the datasets. An image that none of them uses is a finding.
        cfg: a config that their classes, ignored label and tasks are to fit; None = as each
            dataset's metadata and records have them.
    """
    report = Report()
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
        _inspect_all(records, expected, dataset)
        dataset.note_unseen()
    for root, dataset in roots.items():
        for path in sorted(_files(root, IMAGE_EXTENSIONS).values()):
            if os.path.abspath(path) in used:
                continue
            message = f"{path} has no label in a dataset that is checked here"
            dataset.tally.note("image without label", path, message)
    return report


def inspect_config(cfg) -> Report:
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


def check_samples(cfg, *, train: bool, arguments: str = "...", num_samples: int = 32) -> None:
    """The quick form: some records, spread evenly over each dataset of a config that fits them.

    Args:
        cfg: a config that check_config has passed.
        train: look into DATASETS.TRAIN as well as DATASETS.TEST.
        arguments: the config's file and overrides, to name them in the message.
        num_samples: records of each dataset, at most.

    Raises:
        InputError: there is an error among them.
    """
    tally = Tally()
    for name in dict.fromkeys([*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST]):
        records = load_records(name)
        inspect = partial(inspect_record, expected=Expected.from_config(cfg, records, name))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            tally.add(_merge(pool.map(inspect, spread_evenly(records, num_samples))))
    errors = [finding for finding in tally.findings if finding.is_error]
    full = f"python tools/check_dataset.py --config-file {arguments}"
    if errors:
        more = f" ({len(errors) - 1} more among {tally.images} samples)" if errors[1:] else ""
        raise InputError(f"{errors[0].message}{more}; {full} shows all")
    if tally.findings:
        logger.warning(
            "%d warnings among %d samples of the datasets, the first: %s; %s shows all",
            *(len(tally.findings), tally.images, tally.findings[0].message, full),
        )


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, or all where there are fewer, the first and the last among them."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in chosen]


def _load(name: str, tally: Tally) -> list[dict]:
    """The dataset's records; where its loader refuses, the pairs that there are."""
    try:
        check_dataset_present(name)
    except InputError as e:
        tally.note("dataset", "", str(e))
        return []
    try:
        records = DatasetCatalog.get(name)
        if not records:
            tally.note("dataset", "", f"dataset {name!r} has no image")
            return []
    except Exception as e:  # a loader of another's may raise anything
        records = None
        reason = str(e) if isinstance(e, InputError) else f"{type(e).__name__}: {e}"
        tally.note("dataset", "", f"dataset {name!r} cannot be loaded: {reason}")
    metadata = MetadataCatalog.get(name)
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
        MapDataset(
            DatasetFromList(records, copy=False), partial(inspect_record, expected=expected)
        ),
        batch_size=8,
        collate_fn=_merge,
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


def _merge(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total
