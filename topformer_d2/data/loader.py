"""Data loaders. A training sample depends only on the seed and on its position in the stream.

Every sample draws its augmentation from (seed, position in the stream), so a run gives the same
images for any number of workers, and a resumed run goes on where the one before it stopped.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import cv2
import torch
from detectron2.config import CfgNode
from detectron2.data import MapDataset, MetadataCatalog
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
    trivial_batch_collator,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..config import model_tasks
from ..errors import InputError
from ..logs import get_logger
from ..tasks import IMAGES
from .boxes import clean_boxes
from .class_mapper import ClassMapper
from .config_checks import train_weights
from .folders import needs_outlines, register_folders
from .labelled import tasks_of
from .mapper import TaskMapper
from .mixed_sampler import MixedSampler
from .packed import PackedRecords
from .registered import load_records
from .seeded import Mapper, SeededMap, kinds_of

logger = get_logger(__name__)

# Test images of a classifier in a batch.
_CLASS_BATCH = 32


def check_shares(total_batch_size: int, processes: int) -> None:
    """Raise InputError where the processes of a run cannot share each batch equally."""
    if total_batch_size <= 0 or total_batch_size % processes:
        fitting = [n for n in range(1, max(1, total_batch_size) + 1) if total_batch_size % n == 0]
        listed = ", ".join(map(str, fitting[-8:]))
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {total_batch_size}, which the {processes} training "
            f"processes cannot share equally: take a multiple of {processes}, or another number of "
            f"processes ({'..., ' if len(fitting) > 8 else ''}{listed})"
        )


class TrainLoader:
    """An endless stream of training batches (lists of dicts) that can start anywhere.

    Pixel labels, "sem_seg", are (H, W) int64.

    Attributes:
        seed: of the shuffling and the augmentation; equal on all processes.
        start_iter: batches to leave out at the start, as a run that resumes does.
        Both are read when iteration begins.
    """

    def __init__(
        self,
        records: list[dict],
        mapper: Mapper,
        *,
        total_batch_size: int,
        num_workers: int,
        seed: int,
        group_by_shape: bool = False,
        parts: Sequence[tuple[int, float]] = (),
    ):
        """
        Args:
            records: Detectron2 dataset dicts.
            mapper: record to sample.
            total_batch_size: images of a batch over all processes.
            num_workers: processes that load, for each training process; 0 = none.
            group_by_shape: batches of wide or of tall images only, so that less is padded; takes
                effect where all records have their size.
            parts: (number of records, weight) of the datasets that `records` consists of, in order;
                each gets its weight's share of the images. Empty = one dataset.
        """
        check_shares(total_batch_size, comm.get_world_size())
        self.mapper = mapper
        self.batch_size = total_batch_size // comm.get_world_size()
        self.num_workers = num_workers
        self.seed = seed
        self.start_iter = 0
        self._is_wide = [False] * len(records)
        if group_by_shape and all("width" in r and "height" in r for r in records):
            self._is_wide = [r["width"] > r["height"] for r in records]
        self._parts = list(parts)
        # Without weights all are one dataset, as they are to the sampler.
        self._kinds = None  # samples of one record need none
        if getattr(mapper, "mixing", None) is not None:
            self._kinds = kinds_of(records, [size for size, _ in parts])
        self.records = PackedRecords(records)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        """This process's share of each batch: (position in the stream, index of the record).

        A batch has the same images for any number of processes.
        """
        rank, world_size = comm.get_rank(), comm.get_world_size()
        total = self.batch_size * world_size
        stream = enumerate(self._stream())
        if not any(self._is_wide) or all(self._is_wide):
            stream = itertools.islice(stream, self.start_iter * total, None)
            while True:
                yield list(itertools.islice(stream, total))[rank::world_size]
        batches: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        complete = 0
        # From the start also when resuming: which images share a batch depends on those before.
        for position, index in stream:
            batch = batches[self._is_wide[index]]
            batch.append((position, index))
            if len(batch) == total:
                if complete >= self.start_iter:
                    yield batch[rank::world_size]
                batch.clear()
                complete += 1

    def _stream(self) -> Iterator[int]:
        """Indices of the records, without end, the same in all processes."""
        if self._parts:
            return iter(MixedSampler(self._parts, seed=self.seed))
        return TrainingSampler(len(self.records), seed=self.seed)._infinite_indices()

    def __iter__(self) -> Iterator[list[dict]]:
        loader = DataLoader(
            SeededMap(self.records, self.mapper, self.seed, self._kinds),
            batch_sampler=self._batches(),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=init_worker,
            # Its own generator: the default one would take a number from the model's.
            generator=torch.Generator().manual_seed(self.seed),
        )
        for batch in _deaths_at_reading(loader):
            for sample in batch:
                if "sem_seg" in sample:
                    # What losses take; as bytes until here, a sixth more images a second arrive.
                    sample["sem_seg"] = sample["sem_seg"].long()
            yield batch


def _deaths_at_reading(loader: DataLoader) -> Iterator[list[dict]]:
    """The batches; a process of the loader that has died is an error when the next one is read.

    PyTorch's handler of SIGCHLD would raise it wherever the training is, perhaps in the middle of
    an update.
    """
    in_main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGCHLD) if in_main and hasattr(signal, "SIGCHLD") else None
    batches = iter(loader)  # starts the processes
    if previous is not None:
        signal.signal(signal.SIGCHLD, previous)
    yield from batches


def init_worker(_: int) -> None:
    """First step of a loader's process: ignore signals, which the main process handles."""
    # Ctrl-C and a scheduler's SIGTERM go to the whole process group; only the training process is
    # to handle them, and it must still be able to end its workers by SIGTERM.
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    cv2.setNumThreads(0)  # the workers are the parallelism


def build_train_loader(cfg: CfgNode) -> TrainLoader:
    """The training stream of DATASETS.TRAIN, drawn from SEED; -1 = from a seed drawn here.

    All processes of a run get the same stream, and must call this together.

    Raises:
        InputError: a dataset has no image to train on, or DATASETS.TRAIN_WEIGHTS does not fit.
    """
    register_folders(cfg)  # another config may have been loaded since
    datasets = [_train_records(cfg, name) for name in cfg.DATASETS.TRAIN]
    weights = train_weights(cfg)
    return TrainLoader(
        list(itertools.chain.from_iterable(datasets)),
        _build_mapper(cfg, is_train=True),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        seed=cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        group_by_shape=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        parts=list(zip(map(len, datasets), weights, strict=True)) if weights else (),
    )


def _build_mapper(cfg: CfgNode, *, is_train: bool) -> Mapper:
    kind = ClassMapper if model_tasks(cfg) == (IMAGES.name,) else TaskMapper
    return kind(cfg, is_train=is_train)


def _train_records(cfg: CfgNode, name: str) -> list[dict]:
    """A dataset's records that have labels for the config's model."""
    tasks = model_tasks(cfg)
    records = [r for r in load_records(name) if set(tasks).intersection(r["tasks"])]
    if "instances" in tasks_of(records) and "instances" in tasks:
        with_outlines = needs_outlines(cfg)
        records = clean_boxes(records, with_outlines=with_outlines)
        if with_outlines:
            objects = [a for r in records for a in r["annotations"] if not a.get("iscrowd", 0)]
            logger.info(
                "%s: %d of %d objects have an outline, by which INPUT.COPY_PASTE pastes them; of "
                "the others it pastes the box",
                *(name, sum("segmentation" in a for a in objects), len(objects)),
            )
        print_instances_class_histogram(records, MetadataCatalog.get(name).thing_classes)
    # An image without objects still has pixels to label.
    if tasks == ("instances",) and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        records = filter_images_with_only_crowd_annotations(records)
    if not records:
        raise InputError(f"DATASETS.TRAIN names {name!r}, which has no image to train on")
    return records


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """All images of a registered dataset, resized as the protocol says, one at a time.

    A classifier's images have one size, and come in batches.
    """
    register_folders(cfg)  # another config may have been loaded since
    records = PackedRecords(load_records(dataset_name))
    # Detectron2's own test loader leaves its workers to die of Ctrl-C in mid-evaluation.
    return DataLoader(
        MapDataset(records, _build_mapper(cfg, is_train=False)),
        batch_size=_CLASS_BATCH if model_tasks(cfg) == (IMAGES.name,) else 1,
        sampler=InferenceSampler(len(records)),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=init_worker,
    )
