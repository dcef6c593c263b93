"""Boxes evaluated by COCO's metrics, through faster-coco-eval."""

from __future__ import annotations

import itertools
import os

import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from faster_coco_eval import COCO, COCOeval_faster

from ..data.coco_truth import box_truth
from ..data.registered import load_records
from ..errors import InputError
from ..files import write_json
from ..logs import get_logger


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


def _quietly(*_: object) -> None:
    pass


def coco_results(instances: Instances, image_id: int | str, metadata: Metadata) -> list[dict]:
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


def _use_dataset_ids(results: list[dict], metadata: Metadata) -> None:
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

    The truth is read as training reads it (see box_truth), so what a check of the dataset accepts
    is evaluated. Results come in COCOEvaluator's dict, {"bbox": {"AP": 0..100, ...}}; where a model
    finds nothing they are 0 and not NaN, and a warning says so.
    """

    needs = "boxes"

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
                are the truth.
            output_dir: where evaluate() writes coco_instances_results.json (COCO's results format)
                and bbox_evaluation.json (the metrics); None = nowhere.
            distributed: collect the results of all processes.
            max_dets_per_image: that count, of a class; None = COCO's 100.

        Raises:
            InputError: as box_truth.
        """
        # Not COCOEvaluator's: it reads the JSON with pycocotools, which is stricter, and trusts a
        # conversion of the records that an earlier run has left in output_dir.
        self._logger = get_logger(__name__)
        self._metadata = MetadataCatalog.get(dataset_name)
        self._distributed = distributed
        self._tasks = ("bbox",)
        self._cpu_device = torch.device("cpu")
        self._output_dir = None  # else it also pickles all predictions there
        self._results_folder = output_dir
        self._most = 100 if max_dets_per_image is None else max_dets_per_image
        self._predictions: list[dict] = []
        records = load_records(dataset_name)
        truth = box_truth(dataset_name, records)
        self._do_evaluation = "annotations" in truth
        self._numbers = {image["id"]: n for n, image in enumerate(truth["images"], 1)}
        self._truth = COCO(_renumbered(truth, self._numbers))
        self._without_boxes = {  # by their "tasks"; what is found there is neither right nor wrong
            record["image_id"] for record in records if "instances" not in record["tasks"]
        }

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """As COCOEvaluator's; InputError where the model gives no boxes."""
        if not all("instances" in output for output in outputs):
            raise InputError(
                f"the model gives no boxes ('instances') for {self._metadata.name!r}: BoxEvaluator "
                "is for a detector or a joint model, ConfusionEvaluator for a segmenter"
            )
        super().process(inputs, outputs)

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        results = list(itertools.chain.from_iterable(p["instances"] for p in predictions))
        _use_dataset_ids(results, self._metadata)
        self._write("coco_instances_results.json", results)
        name = self._metadata.name
        if not results:
            self._logger.warning(
                "%s: NOTHING WAS FOUND in %d images, so AP is 0. Is the model trained, are the "
                "weights its own, or is MODEL.RETINANET.SCORE_THRESH_TEST too high?",
                *(name, len(predictions)),
            )
        if not self._do_evaluation:
            self._logger.info("%s has no annotations to compare with", name)
            return
        if not self._truth.anns:
            self._logger.warning("%s has no object, so AP says nothing", name)
        for result in results:
            if result["image_id"] not in self._numbers:
                raise InputError(f"{name} has no image with the id {result['image_id']!r}")
        results = [{**r, "image_id": self._numbers[r["image_id"]]} for r in results]
        numbers = [
            self._numbers[i] for i in img_ids or self._numbers if i not in self._without_boxes
        ]
        evaluation = evaluate_boxes(
            self._truth, results, image_ids=numbers, max_detections=self._most
        )
        names = self._metadata.get("thing_classes")
        metrics = self._derive_coco_results(evaluation, "bbox", class_names=names)
        self._results["bbox"] = metrics
        self._write("bbox_evaluation.json", {"metrics": metrics})
        self.examine(results, numbers)

    def examine(self, results: list[dict], image_numbers: list[int]) -> None:
        """For subclasses: the detections in COCO's format, by the images' numbers, once evaluated.

        Args:
            results: of all images.
            image_numbers: those that are evaluated.
        """

    def _write(self, name: str, content: object) -> None:
        if self._results_folder:
            write_json(os.path.join(self._results_folder, name), content)


def _renumbered(truth: dict, image_numbers: dict) -> dict:
    """box_truth's content with images and annotations numbered from 1.

    faster-coco-eval takes numbers alone, and, as pycocotools does, an annotation 0 for none.
    """
    annotations = [a for a in truth.get("annotations", ()) if a["image_id"] in image_numbers]
    return {
        "images": [{"id": n} for n in image_numbers.values()],
        "annotations": [
            {**a, "id": n, "image_id": image_numbers[a["image_id"]]}
            for n, a in enumerate(annotations, start=1)
        ],
        "categories": truth["categories"],
    }
