#!/usr/bin/env python
"""Time the training loader: decoding and the segmentation recipe, beside Detectron2's stock mapper.

Images are generated at ADE20K's usual size (683x512, JPEG quality 90) with labels. Both mappers do
the same recipe on one core, image by image in turn, so that what else the machine does falls on
both alike; the stock one through Detectron2's own augmentations (Pillow, PointRend's colours). Then
the loader runs with 1, 2 and 4 worker processes, as far as there are cores: from the loose files,
and from tar files with the same images, by turns. The ratio of the two is the median of those of
neighbouring runs. Either may be in the memory of the system, as files just written are.
"""

import argparse
import os
import statistics
import tempfile
import time

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from tabulate import tabulate
from tqdm.auto import tqdm

from topformer_d2 import get_config
from topformer_d2.data.categories import Categories
from topformer_d2.data.loader import TrainLoader
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.sem_seg import load_image_label_pairs, register_sem_seg
from topformer_d2.data.shard_writer import write_shards
from topformer_d2.data.synthetic import make_sample

# Reading includes the checks of the label; what comes last turns the arrays into tensors.
STAGES = ("read, decode", "resize", "crop", "flip", "colour", "to tensors")
BATCH = 8


def write_images(folder: str, count: int) -> list[dict]:
    """Write images as JPEG and labels as PNG; returns their records."""
    records = []
    for i in range(count):
        image, label, _ = make_sample(i, 512, 683)
        image = cv2.GaussianBlur(image, (0, 0), 1.2)  # a photograph's noise is not white
        record = {
            "file_name": os.path.join(folder, f"{i}.jpg"),
            "sem_seg_file_name": os.path.join(folder, f"{i}.png"),
        }
        cv2.imwrite(record["file_name"], image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(record["sem_seg_file_name"], label)
        records.append(record)
    return records


def in_shards(records: list[dict], folder: str) -> list[dict]:
    """The records of the same images in tar files, in the same order."""
    register_sem_seg("loose", folder, folder, Categories(("class",), (), (0,), 255))
    DatasetCatalog.remove("loose")
    DatasetCatalog.register("loose", lambda: records)
    shards = os.path.join(folder, "shards")
    entry = write_shards("loose", shards, most_mib=256)
    paths = {os.path.basename(r["file_name"]): r for r in records}
    packed = load_image_label_pairs(entry["IMAGES"], entry["LABELS"])
    by_name = {os.path.basename(r["file_name"]): r for r in packed}
    return [by_name[name] for name in paths]


def stock_mapper(cfg) -> DatasetMapper:
    """Detectron2's mapper with the recipe of `cfg` made of its own augmentations."""
    low, high = (int(cfg.INPUT.MIN_SIZE_TRAIN[0] * ratio) for ratio in cfg.INPUT.SCALE_RANGE)
    crop = cfg.INPUT.CROP
    augmentations = [
        T.ResizeShortestEdge((low, high), 2 * cfg.INPUT.MAX_SIZE_TRAIN, "range"),
        T.RandomCrop_CategoryAreaConstraint(
            crop.TYPE, crop.SIZE, crop.SINGLE_CATEGORY_MAX_AREA, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        ),
        T.RandomFlip(),
        ColorAugSSDTransform(cfg.INPUT.FORMAT),
    ]
    return DatasetMapper(True, augmentations=augmentations, image_format=cfg.INPUT.FORMAT)


def seconds_by_stage(mapper, record: dict, seed: int) -> dict[str, float]:
    """What the mapper spends on one image, stage by stage, and in all."""
    augmentations = mapper.augmentations
    times = [time.perf_counter()]

    def augment(sample: T.AugInput) -> T.TransformList:
        times.append(time.perf_counter())
        transforms = []
        for augmentation in augmentations.augs:
            transforms.append(augmentation(sample))
            times.append(time.perf_counter())
        return T.TransformList(transforms)

    np.random.seed(seed)
    mapper.augmentations = augment
    mapper(dict(record))
    mapper.augmentations = augmentations
    times.append(time.perf_counter())
    return dict(zip((*STAGES, "all"), (*np.diff(times), times[-1] - times[0]), strict=True))


def compare(mappers: dict, records: list[dict], repetitions: int) -> dict[str, dict[str, float]]:
    """Milliseconds of an image by mapper and stage: each image's best time, the images' mean."""
    best: dict[tuple, float] = {}
    for repetition in range(repetitions):
        for i, record in enumerate(
            tqdm(records, f"{repetition + 1} of {repetitions}", leave=False)
        ):
            for name, mapper in mappers.items():
                # The same draws in each repetition, so that the best time is of the same work.
                for stage, seconds in seconds_by_stage(mapper, record, seed=i).items():
                    key = name, stage, i
                    best[key] = min(best.get(key, seconds), seconds)
    count = len(records)
    return {
        name: {
            stage: 1e3 * sum(best[name, stage, i] for i in range(count)) / count
            for stage in (*STAGES, "all")
        }
        for name in mappers
    }


def loader_rate(mapper, records: list[dict], workers: int, batches: int) -> float:
    """Images a second of the training loader, once its workers run."""
    loader = iter(TrainLoader(records, mapper, total_batch_size=BATCH, num_workers=workers, seed=0))
    for _ in range(4 * workers):  # what they had ready before the clock starts
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return BATCH * batches / (time.perf_counter() - start)


def compare_sources(
    mapper, sources: list[list[dict]], workers: int, args: argparse.Namespace
) -> list[list[float]]:
    """Images a second from each of two sources, which take turns in beginning; of each round."""
    pairs = []
    for number in range(args.rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        rates = {i: loader_rate(mapper, sources[i], workers, args.batches) for i in order}
        pairs.append([rates[0], rates[1]])
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--batches", type=int, default=40, help=f"of {BATCH}, for each number of workers"
    )
    parser.add_argument(
        "--rounds", type=int, default=6, help="of loose files and shards; default: 6"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cfg = get_config("seg_topformer_t")
    mappers = {"Detectron2's": stock_mapper(cfg), "ours": TaskMapper(cfg, is_train=True)}
    with tempfile.TemporaryDirectory() as folder:
        records = write_images(folder, args.images)
        size = sum(os.path.getsize(record["file_name"]) for record in records) / len(records)
        print(f"{args.images} JPEGs of 683x512, {size / 1e3:.0f} kB each; crops of 512x512")
        times = compare(mappers, records, args.repetitions)
        stock, ours = times.values()
        rows = [[stage, stock[stage], ours[stage], stock[stage] / ours[stage]] for stage in stock]
        rate = [1e3 / stock["all"], 1e3 / ours["all"], stock["all"] / ours["all"]]
        headers = ["ms an image, one core", *times, "times faster"]
        print(tabulate([*rows, ["images a second", *rate]], headers=headers, floatfmt=".2f"))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        rows = []
        sources = [records, in_shards(records, folder)]
        for workers in [n for n in (1, 2, 4) if n <= cores]:
            pairs = compare_sources(mappers["ours"], sources, workers, args)
            loose, packed = map(max, zip(*pairs, strict=True))
            ratio = statistics.median(packed / loose for loose, packed in pairs)
            single = rows[0][1] if rows else loose
            rows.append([workers, loose, loose / single, packed, ratio])
    headers = ["workers", "images a second", "times one worker", "from shards", "shards / loose"]
    print(f"\n{tabulate(rows, headers=headers, floatfmt='.2f')}")
    if cores < 4:
        print(f"4 workers are not timed: this machine has {cores} cores")


if __name__ == "__main__":
    main()
