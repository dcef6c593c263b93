"""pycocotools' metrics, and generated boxes, to check and time the box evaluation."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import InputError

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def evaluate_with_pycocotools(truth: dict, results: list[dict]) -> np.ndarray:
    """METRICS in 0..1, or -1 where there is no truth.

    Args:
        truth: a COCO JSON's content.
        results: in COCO's results format; not empty.
    """
    truth, results = copy.deepcopy((truth, results))  # pycocotools adds keys of its own
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = truth
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[: len(METRICS)]


def generate_boxes(
    num_images: int, *, num_classes: int = 80, seed: int = 0
) -> tuple[dict, list[dict]]:
    """A generated COCO JSON's content, and detections near most of its objects.

    Sizes run from a pixel to most of the image. There are crowds, images without objects, a class
    without any, and results with equal scores; category ids have gaps.

    Args:
        num_images: of 640x480 pixels, with up to 14 objects and about 100 results each.
        num_classes: 2 or more.
        seed: the same seed gives the same boxes.
    """
    if num_images < 1 or num_classes < 2:
        raise InputError("boxes are generated for one image or more and two classes or more")
    rng = np.random.default_rng(seed)
    width, height = 640, 480
    ids = [1 + i + i // 3 for i in range(num_classes)]
    annotations: list[dict] = []
    results: list[dict] = []
    for image_id in range(1, num_images + 1):
        for _ in range(int(rng.integers(0, 15))):
            category = ids[int(rng.integers(num_classes - 1))]
            w, h = np.exp(rng.uniform(0, np.log([500, 400])))
            x, y = rng.uniform((0, 0), (width - w, height - h))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [float(x), float(y), float(w), float(h)],
                    "area": float(w * h),
                    "iscrowd": int(rng.uniform() < 0.05),
                }
            )
            for _ in range(int(rng.integers(0, 6))):
                shift = rng.normal(0, 0.06, 4) * (w, h, w, h)
                found = np.maximum([x + shift[0], y + shift[1], w + shift[2], h + shift[3]], 0.1)
                results.append(_result(image_id, category, found, rng.beta(3, 2)))
        for _ in range(int(rng.integers(60, 120))):
            found = rng.uniform((0, 0, 2, 2), (width - 90, height - 90, 90, 90))
            category = ids[int(rng.integers(num_classes))]
            results.append(_result(image_id, category, found, rng.beta(1, 5)))
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": width, "height": height}
            for i in range(1, num_images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in ids],
    }
    return content, results


def _result(image_id: int, category: int, box: np.ndarray, score: float) -> dict:
    return {
        "image_id": image_id,
        "category_id": category,
        "bbox": [float(v) for v in box],
        "score": round(float(score), 2),
    }
