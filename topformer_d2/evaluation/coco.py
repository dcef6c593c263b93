"""Boxes evaluated by COCO's metrics, through faster-coco-eval."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager
from faster_coco_eval import COCO, COCOeval_faster

from ..data.files import write_beside


def evaluate_boxes(
    truth: COCO, results: list[dict], *, image_ids: list | None = None, max_detections: int = 100
) -> COCOeval_faster:
    """COCO's protocol for boxes.

    Args:
        truth: faster_coco_eval.COCO of the annotations.
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
        metadata: of a dataset, or an empty dict: then category_id is the class's index.
    """
    results = instances_to_coco_json(instances.to("cpu"), image_id)
    _use_dataset_ids(results, metadata)
    return results


def _use_dataset_ids(results: list[dict], metadata) -> None:
    """Turn category_id from the class's index to the dataset's id, which may have gaps."""
    to_index = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = {index: source for source, index in to_index.items()}
    for result in results:
        result["category_id"] = ids.get(result["category_id"], result["category_id"])


class BoxEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator for boxes alone, computed by faster-coco-eval.

    Results come in COCOEvaluator's dict, {"bbox": {"AP": 0..100, ...}}; where a model finds nothing
    they are 0 and not NaN.
    """

    def __init__(self, dataset_name: str, *, output_dir: str | None = None, **kwargs):
        """
        Args:
            dataset_name: a registered dataset with a COCO JSON ("json_file" in its metadata).
            output_dir: where evaluate() writes coco_instances_results.json (COCO's results format)
                and bbox_evaluation.json (the metrics); None = nowhere.
            kwargs: as for COCOEvaluator.
        """
        super().__init__(dataset_name, tasks=("bbox",), output_dir=None, **kwargs)
        self._results_folder = output_dir
        self._truth = COCO(PathManager.get_local_path(self._metadata.json_file))

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        results = list(itertools.chain.from_iterable(p["instances"] for p in predictions))
        _use_dataset_ids(results, self._metadata)
        self._write("coco_instances_results.json", results)
        if not self._do_evaluation:
            self._logger.info("%s has no annotations to compare with", self._metadata.name)
            return
        evaluation = evaluate_boxes(
            self._truth,
            results,
            image_ids=img_ids,
            max_detections=self._max_dets_per_image[-1],
        )
        names = self._metadata.get("thing_classes")
        self._results["bbox"] = self._derive_coco_results(evaluation, "bbox", class_names=names)
        self._write("bbox_evaluation.json", {"metrics": self._results["bbox"]})

    def _write(self, name: str, content) -> None:
        if self._results_folder:
            PathManager.mkdirs(self._results_folder)
            path = os.path.join(self._results_folder, name)
            write_beside(Path(path), json.dumps(content).encode())
