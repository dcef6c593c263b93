"""Boxes evaluated by COCO's metrics, through faster-coco-eval."""

from __future__ import annotations

import itertools
import math
import os

from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from faster_coco_eval import COCO, COCOeval_faster

from ..data.checks import load_records
from ..errors import InputError
from ..files import write_json


def evaluate_boxes(
    truth: COCO, results: list[dict], *, image_ids: list | None = None, max_detections: int = 100
) -> COCOeval_faster:
    """COCO's protocol for boxes.

    Args:
        truth: faster_coco_eval.COCO of the annotations; image ids are numbers.
        results: [{"image_id", "category_id", "bbox" (x, y, width, height), "score"}].
        image_ids: evaluate these images alone.
        max_detections: of an image and class, best first, that count.

    Returns:
        the evaluation; its `stats` begin with AP, AP50, AP75, APs, APm and APl in 0..1, or -1 where
        there is no truth.
    """
    evaluation = COCOeval_faster(
        truth, truth.loadRes(results), iouType="bbox", print_function=_quietly
    )
    evaluation.params.maxDets = [1, 10, max_detections]
    if image_ids is not None:
        evaluation.params.imgIds = image_ids
    evaluation.run()
    return evaluation


def _quietly(*_) -> None:
    pass


def coco_results(instances: Instances, image_id: int | str, metadata) -> list[dict]:
    """Predicted boxes in COCO's results format, with the dataset's category ids.

    Args:
        instances: a model's output for one image, on any device.
        image_id: of the image.
        metadata: of the dataset.

    Raises:
        InputError: the dataset has no such class.
    """
    results = instances_to_coco_json(instances.to("cpu"), image_id)
    _use_dataset_ids(results, metadata)
    return results


def _use_dataset_ids(results: list[dict], metadata) -> None:
    """Turn category_id from the class's index to the dataset's id, which may have gaps.

    As in Detectron2, a dataset without such a table has the indices for ids.
    """
    to_index = metadata.get("thing_dataset_id_to_contiguous_id")
    if to_index is None:
        return
    ids = {index: source for source, index in to_index.items()}
    for result in results:
        if result["category_id"] not in ids:
            raise InputError(
                f"class {result['category_id']} was predicted, but the dataset "
                f"{metadata.get('name')!r} has {len(ids)} classes: is it the model's "
                "(DATASETS.TEST)?"
            )
        result["category_id"] = ids[result["category_id"]]


class BoxEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator for boxes alone, computed by faster-coco-eval.

    Results come in COCOEvaluator's dict, {"bbox": {"AP": 0..100, ...}}; where a model finds nothing
    they are 0 and not NaN.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        distributed: bool = True,
        max_dets_per_image: int | None = None,
    ):
        """
        Args:
            dataset_name: a registered dataset; where its metadata names no COCO JSON, its records
                are converted to one in output_dir.
            output_dir: where evaluate() writes coco_instances_results.json (COCO's results format)
                and bbox_evaluation.json (the metrics); None = nowhere.
            distributed: collect the results of all processes.
            max_dets_per_image: that count, of a class; None = COCO's 100.
        """
        super().__init__(
            dataset_name,
            tasks=("bbox",),
            distributed=distributed,
            output_dir=output_dir,
            max_dets_per_image=max_dets_per_image,
        )
        self._output_dir = None  # else it also pickles all predictions there
        self._results_folder = output_dir
        self._numbers = {image["id"]: n for n, image in enumerate(self._coco_api.imgs.values(), 1)}
        self._truth = COCO(_renumbered(self._coco_api.dataset, self._numbers))
        self._without_boxes = {  # by their "tasks"; what is found there is neither right nor wrong
            record["image_id"]
            for record in load_records(dataset_name)
            if "instances" not in record["tasks"]
        }

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        results = list(itertools.chain.from_iterable(p["instances"] for p in predictions))
        _use_dataset_ids(results, self._metadata)
        self._write("coco_instances_results.json", results)
        if not self._do_evaluation:
            self._logger.info("%s has no annotations to compare with", self._metadata.name)
            return
        evaluation = evaluate_boxes(
            self._truth,
            [{**result, "image_id": self._numbers[result["image_id"]]} for result in results],
            image_ids=[
                self._numbers[i] for i in img_ids or self._numbers if i not in self._without_boxes
            ],
            max_detections=self._max_dets_per_image[-1],
        )
        names = self._metadata.get("thing_classes")
        metrics = self._derive_coco_results(evaluation, "bbox", class_names=names)
        self._results["bbox"] = metrics
        # JSON has no NaN.
        written = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        self._write("bbox_evaluation.json", {"metrics": written})

    def _write(self, name: str, content) -> None:
        if self._results_folder:
            write_json(os.path.join(self._results_folder, name), content)


def _renumbered(dataset: dict, image_numbers: dict) -> dict:
    """The boxes of a COCO JSON with images and annotations numbered from 1.

    faster-coco-eval takes numbers alone, and, as pycocotools does, an annotation 0 for none.
    """
    annotations = [
        {
            "id": n,
            "image_id": image_numbers[a["image_id"]],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "area": a.get("area", a["bbox"][2] * a["bbox"][3]),
            "iscrowd": a.get("iscrowd", 0),
        }
        for n, a in enumerate(
            (a for a in dataset.get("annotations", []) if a["image_id"] in image_numbers), start=1
        )
    ]
    images = [{**image, "id": image_numbers[image["id"]]} for image in dataset["images"]]
    return {"images": images, "annotations": annotations, "categories": dataset["categories"]}
