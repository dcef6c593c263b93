"""Evaluation of a Predictor's label maps on a dataset."""

from __future__ import annotations

from ..data.class_table import ClassTable
from ..data.images import read_image
from ..data.registered import check_dataset_present, load_records
from ..errors import InputError, about
from ..inference import Predictor
from .confusion import ConfusionEvaluator


def evaluate_labels(predictor: Predictor, dataset_name: str) -> dict[str, float]:
    """mIoU and the rest of metrics_from_confusion, in percent, on a registered dataset.

    Raises:
        InputError: the dataset is not there, has no pixel labels, or has other classes; the model
            labels no pixels, or not this image's.
    """
    if "sem_seg" not in predictor.info.tasks:
        raise InputError("this model labels no pixels: it cannot be evaluated by them")
    check_dataset_present(dataset_name)
    records = [r for r in load_records(dataset_name) if "sem_seg" in r["tasks"]]
    if not records:
        raise InputError(f"{dataset_name!r} has no image with pixel labels")
    evaluator = ConfusionEvaluator(dataset_name, distributed=False)
    _check_classes(predictor.info.pixels, dataset_name, evaluator.class_names)
    for record in records:
        image = read_image(record["file_name"])
        with about(record["file_name"]):
            label = predictor(image).label
        evaluator.process([record], [label])
    return evaluator.evaluate()["sem_seg"]


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
