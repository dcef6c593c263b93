#!/usr/bin/env python
"""Time the evaluation of boxes beside that of pycocotools, on generated results."""

import argparse
import contextlib
import io
import time

from faster_coco_eval import COCO as FasterCOCO
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from topformer_d2.evaluation import evaluate_boxes
from topformer_d2.evaluation.generated import generate_boxes

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def with_pycocotools(truth: dict, results: list[dict]):
    """The six metrics in 0..1."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = truth
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[: len(METRICS)]


def with_faster_coco_eval(truth: dict, results: list[dict]):
    """The same."""
    return evaluate_boxes(FasterCOCO(truth), results).stats[: len(METRICS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    args = parser.parse_args()
    truth, results = generate_boxes(args.images, num_classes=args.classes)
    print(f"{args.images} images, {len(truth['annotations'])} objects, {len(results)} results")
    seconds, stats = [], []
    for evaluate in (with_pycocotools, with_faster_coco_eval):
        start = time.perf_counter()
        stats.append(evaluate(truth, results))
        seconds.append(time.perf_counter() - start)
        figures = "  ".join(f"{n} {100 * v:.3f}" for n, v in zip(METRICS, stats[-1], strict=True))
        print(f"{evaluate.__name__:<22} {seconds[-1]:6.1f} s  {figures}")
    difference = abs(stats[0] - stats[1]).max()
    print(f"ratio {seconds[0] / seconds[1]:.1f}, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
