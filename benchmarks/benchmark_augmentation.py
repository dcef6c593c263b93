#!/usr/bin/env python
"""Time what each augmentation beyond the recipes adds to making a training sample.

Images are generated at 640x480 (JPEG, quality 90) with pixel labels and boxes. One thread makes
samples of the lite detector's recipe for both tasks (0.5 to 2 times the size, crops of 512x512,
flip, colours), without and with each augmentation at probability 1, image by image in turn.
"""

import argparse
import os
import tempfile
import time

import cv2
import numpy as np
import torch
from tabulate import tabulate
from tqdm.auto import tqdm

from topformer_d2 import get_config
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.seeded import SeededMap
from topformer_d2.data.synthetic import SHAPES, SYNTHETIC_CATEGORIES, make_sample

KINDS = {
    "the recipe": [],
    "rotation": ["INPUT.WARP.PROB", "1.0"],
    "perspective": ["INPUT.WARP.PROB", "1.0", "INPUT.WARP.PERSPECTIVE", "0.1"],
    "class-balanced crop": ["INPUT.CROP.CLASS_BALANCED_PROB", "1.0"],
    "blur": ["INPUT.BLUR.PROB", "1.0"],
    "noise": ["INPUT.NOISE.PROB", "1.0"],
    "JPEG": ["INPUT.JPEG.PROB", "1.0"],
    "cut-out": ["INPUT.CUTOUT.PROB", "1.0", "INPUT.CUTOUT.MAX_HOLES", "3"],
    "copy-paste": ["INPUT.COPY_PASTE.PROB", "1.0"],
    "mosaic": ["INPUT.MOSAIC.PROB", "1.0"],
}


def write_images(folder: str, count: int) -> list[dict]:
    """Write images as JPEG and labels as PNG; returns their records, which have boxes as well."""
    records = []
    for i in range(count):
        image, label, boxes = make_sample(i, 480, 640)
        image = cv2.GaussianBlur(image, (0, 0), 1.2)  # a photograph's noise is not white
        record = {
            "file_name": os.path.join(folder, f"{i}.jpg"),
            "sem_seg_file_name": os.path.join(folder, f"{i}.png"),
            "annotations": [
                {"bbox": box, "bbox_mode": 0, "category_id": category - 1}
                for category, *box in boxes
            ],
        }
        cv2.imwrite(record["file_name"], image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(record["sem_seg_file_name"], label)
        records.append(record)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    best: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        records = write_images(folder, args.images)
        samples = {}
        for kind, opts in KINDS.items():
            cfg = get_config("multitask_lite_topformer_t", opts)
            cfg.DATASETS.THING_CLASSES = list(SHAPES)
            cfg.DATASETS.STUFF_CLASSES = list(SYNTHETIC_CATEGORIES.names)
            samples[kind] = SeededMap(records, TaskMapper(cfg, is_train=True), seed=0)
        for repetition in range(args.repetitions):
            title = f"{repetition + 1} of {args.repetitions}"
            for i in tqdm(range(args.images), title, leave=False):
                for kind in KINDS:
                    start = time.perf_counter()
                    samples[kind][i, i]  # the same draws in each repetition
                    seconds = time.perf_counter() - start
                    best[kind, i] = min(best.get((kind, i), seconds), seconds)
    times = {kind: 1e3 * np.mean([best[kind, i] for i in range(args.images)]) for kind in KINDS}
    recipe = times["the recipe"]
    rows = [[kind, ms, ms - recipe, ms / recipe] for kind, ms in times.items()]
    headers = ["with", "ms a sample", "more than the recipe", "times the recipe"]
    print(tabulate(rows, headers=headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
