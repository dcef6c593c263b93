"""From a dataset's evaluator_type to its evaluator."""

from __future__ import annotations

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, SemSegEvaluator

from ..config import model_tasks
from ..errors import InputError
from .coco import BoxEvaluator
from .sem_seg import ConfusionEvaluator


def _sem_seg(cfg, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    if cfg.TEST.SEM_SEG_RLE:
        return SemSegEvaluator(dataset_name, distributed=True, output_dir=output_dir)
    return ConfusionEvaluator(dataset_name, output_dir=output_dir)


def _boxes(cfg, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    return BoxEvaluator(dataset_name, output_dir=output_dir)


def _multitask(cfg, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """Of what the model is trained for; the dataset has the truth of both tasks."""
    builders = {"sem_seg": _sem_seg, "instances": _boxes}
    return DatasetEvaluators(
        [builders[task](cfg, dataset_name, output_dir) for task in model_tasks(cfg)]
    )


_BUILDERS = {
    "sem_seg": _sem_seg,
    "cityscapes_sem_seg": _sem_seg,
    "coco": _boxes,
    "multitask": _multitask,
}


def evaluator_type(dataset_name: str) -> str:
    """The evaluator_type of a registered dataset; InputError where it has no evaluator here."""
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in _BUILDERS:
        raise InputError(
            f"dataset {dataset_name!r} has evaluator_type {kind!r}; known: {list(_BUILDERS)}"
        )
    return kind


def build_evaluator(cfg, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluator of a registered dataset, by its evaluator_type."""
    return _BUILDERS[evaluator_type(dataset_name)](cfg, dataset_name, output_dir)
