"""A Predictor's label maps held against a dataset."""

from __future__ import annotations

from ..data.checks import check_dataset_present, load_records
from ..data.files import read_image
from ..errors import InputError
from ..inference import Predictor
from .sem_seg import ConfusionEvaluator


def evaluate_labels(predictor: Predictor, dataset_name: str) -> dict[str, float]:
    """mIoU and the rest of metrics_from_confusion, in percent, on a registered dataset.

    Raises:
        InputError: the dataset is not there, has no pixel labels, or has other classes.
    """
    check_dataset_present(dataset_name)
    records = [r for r in load_records(dataset_name) if "sem_seg" in r["tasks"]]
    if not records:
        raise InputError(f"{dataset_name!r} has no image with pixel labels")
    evaluator = ConfusionEvaluator(dataset_name, distributed=False)
    if len(evaluator.class_names) != len(predictor.info.pixels.names):
        raise InputError(
            f"{dataset_name!r} has {len(evaluator.class_names)} classes, the model "
            f"{len(predictor.info.pixels.names)}"
        )
    for record in records:
        image = read_image(record["file_name"])
        evaluator.process([record], [predictor(image).label])
    return evaluator.evaluate()["sem_seg"]
