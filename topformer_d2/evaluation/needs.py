"""The outputs that each evaluator needs, so that nothing else is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from ..errors import InputError
from ..tasks import BOXES, IMAGES, PIXELS

# What an evaluator's `needs` may name, and the task whose answer it is. A label map is a class
# index for each pixel, which is far cheaper than the logits; with "confidence" comes the
# probability of the class at every fourth row and column, as "sem_seg_confidence".
NEEDS = {
    **dict.fromkeys(("label_map", "confidence", "logits"), PIXELS),
    "boxes": BOXES,
    "image_logits": IMAGES,
}

# Of Detectron2's evaluators, which do not say it themselves.
_OF_DETECTRON2 = {SemSegEvaluator: "logits", COCOEvaluator: "boxes"}

Evaluators: TypeAlias = DatasetEvaluator | Iterable[DatasetEvaluator]


def needs_of(evaluators: Evaluators) -> set[str | None]:
    """All that one or several evaluators need; None stands for one that does not say it.

    Args:
        evaluators: one, or those of several datasets; each may be a DatasetEvaluators.
    """
    return {_need_of(each) for each in _each(evaluators)}


def check_needs(evaluators: Evaluators, tasks: Iterable[str]) -> None:
    """Raise InputError where a model of `tasks` does not give what is evaluated.

    Detectron2's COCOEvaluator says nothing of a segmenter, and its SemSegEvaluator fails with a
    detector.
    """
    for each in _each(evaluators):
        need = _need_of(each)
        if need is not None and NEEDS[need].name not in tasks:
            raise InputError(
                f"{type(each).__name__} evaluates {NEEDS[need].name!r}, and the model gives "
                f"{' and '.join(tasks)}: take another evaluator, such as those of "
                "topformer_d2.evaluation.build_evaluator"
            )


def _each(evaluators: Evaluators) -> Iterator[DatasetEvaluator]:
    if isinstance(evaluators, DatasetEvaluators):
        evaluators = evaluators._evaluators
    if isinstance(evaluators, DatasetEvaluator):
        yield evaluators
        return
    for each in evaluators:
        yield from _each(each)


def _need_of(evaluator: DatasetEvaluator) -> str | None:
    if (need := getattr(evaluator, "needs", None)) is not None:
        if not isinstance(need, str) or need not in NEEDS:
            raise InputError(
                f"`needs` of {type(evaluator).__name__} is {need!r}; it takes one of {[*NEEDS]} "
                "(several evaluators go into a DatasetEvaluators)"
            )
        return need
    return next((n for kind, n in _OF_DETECTRON2.items() if isinstance(evaluator, kind)), None)
