"""The evaluator of a dataset, by the kinds of labels that it has."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..config import model_tasks
from ..data.labelled import known_evaluator_types, registered_tasks
from ..errors import InputError
from ..tasks import BOXES, IMAGES, PIXELS
from .box_mistakes import BoxMistakes
from .coco import BoxEvaluator
from .confusion import ConfusionEvaluator
from .pixel_mistakes import PixelMistakes
from .top_accuracy import TopAccuracy

# The evaluator of each task's labels, and the one that also gathers what is wrong.
_EVALUATORS = {
    PIXELS.name: ConfusionEvaluator,
    BOXES.name: BoxEvaluator,
    IMAGES.name: TopAccuracy,
}
_MISTAKES = {PIXELS.name: PixelMistakes, BOXES.name: BoxMistakes}


def evaluator_type(dataset_name: str) -> str:
    """The evaluator_type of a registered dataset; InputError where it has no evaluator here."""
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if not registered_tasks(dataset_name):
        raise InputError(
            f"dataset {dataset_name!r} has evaluator_type {kind!r}; known: "
            f"{known_evaluator_types()}. For another one, override Trainer.build_evaluator"
        )
    return kind


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str, *, mistakes: bool = False
) -> DatasetEvaluator:
    """The evaluator of a registered dataset, by its metadata's evaluator_type or tasks.

    Of a dataset with both kinds of labels, what the model is trained for is evaluated.

    Args:
        cfg: of the model.
        dataset_name: of the dataset.
        output_dir: where the evaluator writes its results.
        mistakes: by PixelMistakes and BoxMistakes, which gather what the model gets wrong.
    """
    evaluator_type(dataset_name)
    tasks = registered_tasks(dataset_name)
    if len(tasks) > 1:
        tasks = model_tasks(cfg)
    kinds = _MISTAKES if mistakes else _EVALUATORS
    if unknown := [task for task in tasks if task not in kinds]:
        raise InputError(
            f"there is no report of what a model of {unknown[0]!r} gets wrong: evaluate it without "
            "one"
        )
    evaluators = [kinds[task](dataset_name, output_dir=output_dir) for task in tasks]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
