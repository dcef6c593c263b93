#!/usr/bin/env python
"""Time the lite detector, from the network's tensor to boxes, beside the segmentation network.

Both are eager, untrained and on one thread; runs alternate, so that what else the machine does
falls on both alike. The detector is timed as it starts (it finds nothing), and with its scores
shifted so that a given number of candidates pass the threshold; as in RetinaNet, the best 1,000 of
each level are decoded and go through NMS. Exit status 1 when T at 512 takes more than twice its
segmentation network's time.
"""

import argparse
import sys

import numpy as np
import torch
from detectron2.modeling import build_model

from topformer_d2 import get_config
from topformer_d2.analysis import (
    complexity,
    shift_scores,
    time_alternately,
)
from topformer_d2.errors import show_input_errors
from topformer_d2.inference.allocator import keep_freed_memory

MAX_RATIO = 2.0


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=["t", "s", "b"], default="t")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=30)
    args = parser.parse_args()
    if min(args.size, args.candidates, args.repetitions) < 1:
        parser.error("--size, --candidates and --repetitions take 1 or more")
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = (args.size, args.size)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    models = {}
    with show_input_errors():
        for name in ("seg", "det_retinanet_lite"):
            cfg = get_config(f"{name}_topformer_{args.variant}", ["MODEL.DEVICE", "cpu"])
            models[name] = build_model(cfg).eval()
        busy = build_model(cfg).eval()
    segmenter, detector = models.values()
    shift_scores(busy, image, args.candidates)
    normalised = torch.randn(1, 3, *size)
    calls = {
        "segmentation network": lambda: segmenter.sem_seg_head.layers(
            segmenter.backbone(normalised)
        ),
        "lite detector, nothing found": lambda: detector([{"image": image}]),
        f"lite detector, {args.candidates} candidates": lambda: busy([{"image": image}]),
    }
    times = time_alternately(list(calls.values()), args.repetitions)
    # Of neighbours in time, for the machine's speed drifts.
    ratios = np.median(times / times[:, :1], axis=0)
    gmacs = complexity(detector, *size)[""].macs / 1e9
    print(f"TopFormer-{args.variant.upper()}, {args.size}x{args.size}, one thread, eager")
    for name, median, ratio in zip(calls, np.median(times, axis=0), ratios, strict=True):
        print(f"{name:<36} {median:7.1f} ms  {ratio:5.2f}x")
    print(f"lite detector: {gmacs:.2f} GMACs, 80 classes")
    if (args.variant, args.size) == ("t", 512) and ratios.max() > MAX_RATIO:
        sys.exit(f"error: more than {MAX_RATIO} times the segmentation network's time")


if __name__ == "__main__":
    main()
