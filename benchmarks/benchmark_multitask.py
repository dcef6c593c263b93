#!/usr/bin/env python
"""Time both tasks from one pass beside the lite detector and the segmenter, each on its own.

All are eager, untrained and on one thread; runs alternate, so that what else the machine does falls
on all alike. "network" is from the normalised image to logits and raw boxes, "whole" from the image
to logits at its size and boxes after NMS, with 2,000 candidates above the score threshold. One
training step, of 4 images with 10 objects each, and the memory that it takes at its peak, stand
below. Exit status 1 when the joint model takes more than 1.1 times (detector + segmenter -
backbone).
"""

import argparse
import multiprocessing
import sys

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from topformer_d2 import get_config
from topformer_d2.analysis import complexity, shift_scores, time_alternately
from topformer_d2.analysis.memory import added_memory
from topformer_d2.config import single_task_opts
from topformer_d2.engine.solver import build_optimizer
from topformer_d2.errors import show_input_errors
from topformer_d2.inference.allocator import keep_freed_memory

MAX_RATIO = 1.1
NUM_CANDIDATES = 2000
MODELS = ("joint", "detector", "segmenter")


def model_config(name: str, variant: str):
    """The joint lite config, or that of one of its tasks, on the CPU."""
    cfg = get_config(f"multitask_lite_topformer_{variant}", ["MODEL.DEVICE", "cpu"])
    tasks = {"detector": "instances", "segmenter": "sem_seg"}
    if name in tasks:
        cfg.merge_from_list(single_task_opts(cfg, tasks[name]))
    return cfg


def training_batch(size: int, num_images: int = 4, num_objects: int = 10) -> list[dict]:
    """Noise with labels of both kinds."""
    rng = np.random.default_rng(0)
    batch = []
    for _ in range(num_images):
        corners = rng.uniform(0, size * 0.7, (num_objects, 2))
        sides = rng.uniform(size * 0.05, size * 0.3, (num_objects, 2))
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(torch.from_numpy(np.hstack([corners, corners + sides])).float())
        instances.gt_classes = torch.from_numpy(rng.integers(0, 80, num_objects))
        image = torch.from_numpy(rng.integers(0, 256, (3, size, size), dtype=np.uint8))
        sem_seg = torch.from_numpy(rng.integers(0, 171, (size, size)))
        batch.append({"image": image, "sem_seg": sem_seg, "instances": instances})
    return batch


class Step:
    """A training step of a model, to be called."""

    def __init__(self, name: str, variant: str, size: int):
        cfg = model_config(name, variant)
        self.model = build_model(cfg)
        self.optimizer = build_optimizer(cfg, self.model)
        self.batch = training_batch(size)

    def __call__(self) -> None:
        with EventStorage():
            loss = sum(self.model(self.batch).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def peak_memory(name: str, variant: str, size: int) -> float:
    """MiB that two steps add at their peak to the memory of a process of their own (Linux)."""
    torch.set_num_threads(1)
    step = Step(name, variant, size)
    return added_memory(lambda: (step(), step()))


@torch.inference_mode()
def time_inference(variant: str, size: int, repetitions: int) -> tuple[list[list], float]:
    """Rows of a table, and the highest ratio to detector + segmenter - backbone."""
    joint, detector, segmenter = (
        build_model(model_config(name, variant)).eval() for name in MODELS
    )
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    shift_scores(joint, image, NUM_CANDIDATES)
    shift_scores(detector, image, NUM_CANDIDATES)
    inputs = [{"image": image}]
    x = joint.preprocess_image(inputs).tensor
    calls = {
        "network": [
            lambda: joint.network(x),
            lambda: detector.network(x),
            lambda: segmenter.network(x),
        ],
        "whole": [lambda: joint(inputs), lambda: detector(inputs), lambda: segmenter(inputs)],
    }
    rows, worst = [], 0.0
    for part, functions in calls.items():
        times = time_alternately([*functions, lambda: segmenter.backbone(x)], repetitions)
        both = times[:, 1] + times[:, 2]
        # Of neighbours in time, for the machine's speed drifts.
        one_pass = np.median(times[:, 0] / (both - times[:, 3]))
        rows.append([part, *np.median(times, axis=0), one_pass, np.median(times[:, 0] / both)])
        worst = max(worst, one_pass)
    costs = [complexity(model, size, size)[""] for model in (joint, detector, segmenter)]
    backbone = complexity(segmenter, size, size)["backbone"]
    for unit, values in (
        ("parameters, M", [c.parameters / 1e6 for c in (*costs, backbone)]),
        ("GMACs", [c.macs / 1e9 for c in (*costs, backbone)]),
    ):
        both = values[1] + values[2]
        rows.append([unit, *values, values[0] / (both - values[3]), values[0] / both])
    return rows, worst


def time_training(variant: str, size: int, repetitions: int) -> list[list]:
    """Rows of a table, without the backbone's columns."""
    times = time_alternately([Step(name, variant, size) for name in MODELS], repetitions)
    both = times[:, 1] + times[:, 2]
    step = ["training step, ms", *np.median(times, axis=0), None, None]
    context = multiprocessing.get_context("spawn")
    peaks = []
    for name in MODELS:
        with context.Pool(1) as pool:
            peaks.append(pool.apply(peak_memory, (name, variant, size)))
    memory = ["training memory, MiB", *peaks, None, None, peaks[0] / (peaks[1] + peaks[2])]
    return [[*step, np.median(times[:, 0] / both)], memory]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=["t", "s", "b"], default="t")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=30)
    args = parser.parse_args()
    if min(args.size, args.repetitions) < 1:
        parser.error("--size and --repetitions take 1 or more")
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with show_input_errors():
        rows, ratio = time_inference(args.variant, args.size, args.repetitions)
        rows += time_training(args.variant, args.size, max(1, args.repetitions // 10))
    headers = ["", *MODELS, "backbone", "joint / one pass", "joint / both"]
    print(f"TopFormer-{args.variant.upper()}, {args.size}x{args.size}, one thread, eager")
    print(tabulate(rows, headers=headers, floatfmt=".3f"))
    print('"one pass" = detector + segmenter - backbone; "both" = one after the other')
    if ratio > MAX_RATIO:
        sys.exit(f"error: the joint model takes {ratio:.2f} times one pass's time")


if __name__ == "__main__":
    main()
