"""Loaders from the config. The training stream is a function of the seed and the position alone.

Every sample draws its augmentation from (seed, position in the stream), so a run gives the same
images for any number of workers, and a resumed run goes on where the one before it stopped.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError
from .augmentation import build_test_augmentation, build_train_augmentation
from .checks import check_label_range
from .files import read_image, read_label


class SegmentationMapper:
    """A record of a dataset to what the model takes; names the file that is not usable."""

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        num_classes: int,
        ignore_value: int,
        augmentations: list[T.Augmentation],
        image_format: str,
    ):
        """
        Args:
            is_train: training samples carry "sem_seg"; test samples are the image alone, for
                evaluators read the labels themselves and the model must not see them.
            num_classes, ignore_value: labels are below the one or equal to the other.
            augmentations: Detectron2 augmentations, applied in order.
            image_format: "RGB" or "BGR".
        """
        self.is_train = is_train
        self.num_classes = num_classes
        self.ignore_value = ignore_value
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format

    @classmethod
    def from_config(cls, cfg, is_train: bool = True):
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise InputError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; known: RGB, BGR")
        return {
            "is_train": is_train,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "augmentations": (
                build_train_augmentation(cfg) if is_train else [build_test_augmentation(cfg)]
            ),
            "image_format": cfg.INPUT.FORMAT,
        }

    def __call__(self, record: dict) -> dict:
        """The record with "image" (3, H, W) uint8, "height" and "width" of the file's image, and
        in training "sem_seg" (H, W) int64.

        Raises:
            InputError: the image or its labels cannot be read, differ in size, or a label is out
                of range.
        """
        image = read_image(record["file_name"], self.image_format)
        sample = {**record, "height": image.shape[0], "width": image.shape[1]}
        label_file = sample.pop("sem_seg_file_name", None)
        label = self._read_label(label_file, image, record["file_name"]) if self.is_train else None
        augmented = T.AugInput(image, sem_seg=label)
        self.augmentations(augmented)
        sample["image"] = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if label is not None:
            sample["sem_seg"] = torch.from_numpy(augmented.sem_seg.astype(np.int64))
        return sample

    def _read_label(self, file: str, image: np.ndarray, image_file: str) -> np.ndarray:
        label = read_label(file)
        if label.shape != image.shape[:2]:
            raise InputError(
                f"{image_file} is {image.shape[:2]} (height, width) and its label {file} "
                f"{label.shape}. An image is turned by its EXIF orientation, a label is not"
            )
        check_label_range(label, self.num_classes, self.ignore_value, file)
        return label


class _SeededMap(Dataset):
    """Maps the record at `index` with all randomness drawn from (seed, position)."""

    def __init__(self, records: list[dict], mapper, seed: int):
        self.records = DatasetFromList(records, copy=False)  # shared by the workers, serialised
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, position_and_index: tuple[int, int]) -> dict:
        position, index = position_and_index
        state = np.random.SeedSequence([self.seed, position]).generate_state(2)
        np.random.seed(state[0])
        random.seed(int(state[1]))
        return self.mapper(self.records[index])


class TrainLoader:
    """An endless stream of training batches (lists of dicts) that can start anywhere.

    Attributes:
        seed: of the shuffling and the augmentation; equal on all processes.
        start_iter: batches to leave out at the start, as a run that resumes does.
        Both are read when iteration begins.
    """

    def __init__(
        self, records: list[dict], mapper, *, total_batch_size: int, num_workers: int, seed: int
    ):
        """
        Args:
            records: Detectron2 dataset dicts.
            mapper: record to sample.
            total_batch_size: images of a batch over all processes.
            num_workers: processes that load, for each training process; 0 = none.
        """
        world_size = comm.get_world_size()
        if total_batch_size <= 0 or total_batch_size % world_size:
            raise InputError(
                f"SOLVER.IMS_PER_BATCH is {total_batch_size}, which the {world_size} training "
                "processes cannot share equally"
            )
        self.records = records
        self.mapper = mapper
        self.batch_size = total_batch_size // world_size
        self.num_workers = num_workers
        self.seed = seed
        self.start_iter = 0

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        first = self.start_iter * self.batch_size
        indices = iter(TrainingSampler(len(self.records), seed=self.seed))
        samples = (
            (local * world_size + rank, index)
            for local, index in enumerate(itertools.islice(indices, first, None), start=first)
        )
        while True:
            yield list(itertools.islice(samples, self.batch_size))

    def __iter__(self) -> Iterator[list[dict]]:
        yield from DataLoader(
            _SeededMap(self.records, self.mapper, self.seed),
            batch_sampler=self._batches(),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=_init_worker,
            # Its own generator: the default one would take a number from the model's.
            generator=torch.Generator().manual_seed(self.seed),
        )


def _init_worker(_: int) -> None:
    # Ctrl-C and a scheduler's SIGTERM go to the whole process group; only the training process is
    # to handle them, and it must still be able to end its workers by SIGTERM.
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    cv2.setNumThreads(0)  # the workers are the parallelism


def build_train_loader(cfg) -> TrainLoader:
    """The training stream of DATASETS.TRAIN, drawn from SEED (0 or more)."""
    records = get_detection_dataset_dicts(list(cfg.DATASETS.TRAIN), filter_empty=False)
    return TrainLoader(
        records,
        SegmentationMapper(cfg, is_train=True),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        seed=cfg.SEED,
    )


def build_test_loader(cfg, dataset_name: str) -> DataLoader:
    """All images of a registered dataset, one at a time, resized as the protocol says."""
    records = DatasetFromList(DatasetCatalog.get(dataset_name), copy=False)
    # Detectron2's own test loader leaves its workers to die of Ctrl-C in mid-evaluation.
    return DataLoader(
        MapDataset(records, SegmentationMapper(cfg, is_train=False)),
        batch_size=1,
        sampler=InferenceSampler(len(records)),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=_init_worker,
    )
