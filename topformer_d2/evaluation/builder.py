"""From what a dataset has labels for to its evaluator."""

from __future__ import annotations

from collections.abc import Iterable

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from ..config import complete_config, model_tasks
from ..data.checks import load_records
from ..data.tasks import known_evaluator_types, registered_tasks
from ..errors import InputError
from .coco import BoxEvaluator
from .sem_seg import ConfusionEvaluator


def _sem_seg(cfg, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    if not complete_config(cfg).TEST.SEM_SEG_RLE:
        return ConfusionEvaluator(dataset_name, output_dir=output_dir)
    for record in load_records(dataset_name):
        if "sem_seg" not in record["tasks"]:
            raise InputError(
                f"{record['file_name']} of {dataset_name!r} has no pixel labels, which "
                "TEST.SEM_SEG_RLE needs of every image: set that to False"
            )
    return SemSegEvaluator(dataset_name, distributed=True, output_dir=output_dir)


def _boxes(cfg, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    return BoxEvaluator(dataset_name, output_dir=output_dir)


# What Detectron2's evaluators and this toolkit's look for in a model's outputs.
_TASKS = {
    SemSegEvaluator: "sem_seg",
    ConfusionEvaluator: "sem_seg",
    COCOEvaluator: "instances",  # BoxEvaluator as well
}
_BUILDERS = {"sem_seg": _sem_seg, "instances": _boxes}


def evaluator_type(dataset_name: str) -> str:
    """The evaluator_type of a registered dataset; InputError where it has no evaluator here."""
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if not registered_tasks(dataset_name):
        raise InputError(
            f"dataset {dataset_name!r} has evaluator_type {kind!r}; known: "
            f"{known_evaluator_types()}. For another one, override Trainer.build_evaluator"
        )
    return kind


def build_evaluator(cfg, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluator of a registered dataset, by its metadata's evaluator_type or tasks.

    Of a dataset with both kinds of labels, what the model is trained for is evaluated.
    """
    evaluator_type(dataset_name)
    tasks = registered_tasks(dataset_name)
    if len(tasks) > 1:
        tasks = model_tasks(cfg)
    evaluators = [_BUILDERS[task](cfg, dataset_name, output_dir) for task in tasks]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def check_evaluators(cfg, evaluators: DatasetEvaluator | Iterable[DatasetEvaluator] | None) -> None:
    """Whether a model gives what is evaluated; evaluators of unknown classes are not looked at.

    Detectron2's COCOEvaluator says nothing of a segmenter, and its SemSegEvaluator fails with a
    detector.

    Args:
        cfg: the model's config.
        evaluators: one, or those of several datasets; each may be a DatasetEvaluators.

    Raises:
        InputError: it does not.
    """
    if isinstance(evaluators, DatasetEvaluators):
        evaluators = evaluators._evaluators
    if not isinstance(evaluators, DatasetEvaluator):
        for each in evaluators or ():
            check_evaluators(cfg, each)
        return
    wanted = {task for kind, task in _TASKS.items() if isinstance(evaluators, kind)}
    if wanted and not wanted.issubset(tasks := model_tasks(cfg)):
        raise InputError(
            f"{type(evaluators).__name__} evaluates {wanted.pop()!r}, and the model of "
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} gives {' and '.join(tasks)}: "
            "take another evaluator, such as those of topformer_d2.evaluation.build_evaluator"
        )
