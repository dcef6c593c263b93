"""Evaluation of a Predictor's label maps and boxes on a dataset."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from ..data.class_table import ClassTable
from ..data.images import read_image
from ..data.labelled import registered_tasks
from ..data.registered import check_dataset_present, load_records
from ..data.scene import Scene
from ..errors import InputError, about
from ..inference import Predictor
from ..inference.sampled_confidence import STRIDE
from ..tasks import PIXELS, TASKS
from .coco import BoxEvaluator
from .confusion import ConfusionEvaluator
from .pixel_mistakes import PixelMistakes


def evaluate_tasks(predictor: Predictor, dataset_name: str) -> dict[str, dict[str, float]]:
    """The metrics of each task that the model has and the registered dataset has labels of.

    Returns:
        by the task's group of metrics, in percent: "sem_seg" as metrics_from_confusion, "bbox" as
        BoxEvaluator.

    Raises:
        InputError: the dataset is not there, there is no such task, or its classes are others than
            the model's.
    """
    check_dataset_present(dataset_name)
    labelled = registered_tasks(dataset_name)
    tasks = [task for name, task in TASKS.items() if name in predictor.info.tasks]
    common = [task for task in tasks if task.name in labelled]
    if not common:
        raise InputError(
            f"{dataset_name!r} has no {' and no '.join(task.labels for task in tasks)}, "
            "which this model gives"
        )
    evaluators: dict[str, DatasetEvaluator] = {}
    for task in common:
        kind = ConfusionEvaluator if task is PIXELS else BoxEvaluator
        evaluators[task.name] = kind(dataset_name, distributed=False)
        names = list(MetadataCatalog.get(dataset_name).get(task.classes_field))
        _check_classes(getattr(predictor.info, task.table), dataset_name, names)
    for record, scene in _predictions(predictor, load_records(dataset_name)):
        for name, evaluator in evaluators.items():
            found = scene.label if name == PIXELS.name else scene.to_instances()
            if name in record["tasks"]:
                evaluator.process([record], [{name: found}])
    figures: dict[str, dict[str, float]] = {}
    for evaluator in evaluators.values():
        figures |= evaluator.evaluate()
    return figures


def find_label_mistakes(
    predictor: Predictor, dataset_name: str
) -> tuple[PixelMistakes, dict[str, float]]:
    """What evaluate_tasks gives of the pixels, and the evaluator with what the model gets wrong.

    Of a file that gives label maps alone the evaluator has no confidence.

    Raises:
        InputError: the dataset is not there, has no pixel labels, or has other classes; the model
            labels no pixels, or not this image's.
    """
    if PIXELS.name not in predictor.info.tasks:
        raise InputError("this model labels no pixels: it cannot be evaluated by them")
    check_dataset_present(dataset_name)
    records = [r for r in load_records(dataset_name) if PIXELS.name in r["tasks"]]
    if not records:
        raise InputError(f"{dataset_name!r} has no image with pixel labels")
    has_confidence = not predictor.backend.gives_labels
    evaluator = PixelMistakes(dataset_name, distributed=False, confidence=has_confidence)
    keys = {"confidence": True} if has_confidence else {}
    _check_classes(predictor.info.pixels, dataset_name, evaluator.class_names)
    for record, scene in _predictions(predictor, records, **keys):
        output = {PIXELS.name: scene.label}
        if scene.confidence is not None:
            output["sem_seg_confidence"] = scene.confidence[::STRIDE, ::STRIDE]
        evaluator.process([record], [output])
    return evaluator, evaluator.evaluate()[PIXELS.metrics]


def _predictions(
    predictor: Predictor, records: list[dict], **keys: bool
) -> Iterator[tuple[dict, Scene]]:
    """Each record with what the model finds in its image; an error names the image."""
    for record in records:
        image = read_image(record["file_name"])
        with about(record["file_name"]):
            scene = predictor(image, **keys)
        yield record, scene


def _check_classes(classes: ClassTable, dataset_name: str, names: list[str]) -> None:
    if len(names) != len(classes.names):
        raise InputError(
            f"{dataset_name!r} has {len(names)} classes, the model {len(classes.names)}"
        )
    if not classes.dataset:
        return  # the model's names are made up
    for i, (name, own) in enumerate(zip(names, classes.names, strict=True)):
        if name != own:
            raise InputError(
                f"class {i} of {dataset_name!r} is {name!r}, the model's is {own!r}: evaluate it "
                f"on a dataset with the classes of {classes.dataset!r}"
            )
