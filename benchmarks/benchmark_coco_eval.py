#!/usr/bin/env python
"""Time the evaluation of boxes beside that of pycocotools, on generated results."""

import argparse
import copy
import time

from faster_coco_eval import COCO

from topformer_d2.analysis.coco_reference import (
    METRICS,
    evaluate_with_pycocotools,
    generate_boxes,
)
from topformer_d2.errors import show_input_errors
from topformer_d2.evaluation import evaluate_boxes


def evaluate_with_faster_coco_eval(truth: dict, results: list[dict]):
    """METRICS in 0..1."""
    truth, results = copy.deepcopy((truth, results))  # as evaluate_with_pycocotools does
    return evaluate_boxes(COCO(truth), results).stats[: len(METRICS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    args = parser.parse_args()
    with show_input_errors():
        truth, results = generate_boxes(args.images, num_classes=args.classes)
    print(f"{args.images} images, {len(truth['annotations'])} objects, {len(results)} results")
    seconds, stats = [], []
    for evaluate in (evaluate_with_pycocotools, evaluate_with_faster_coco_eval):
        start = time.perf_counter()
        stats.append(evaluate(truth, results))
        seconds.append(time.perf_counter() - start)
        figures = "  ".join(f"{n} {100 * v:.3f}" for n, v in zip(METRICS, stats[-1], strict=True))
        print(f"{evaluate.__name__:<31} {seconds[-1]:6.1f} s  {figures}")
    difference = abs(stats[0] - stats[1]).max()
    print(f"ratio {seconds[0] / seconds[1]:.1f}, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
