"""What is wrong with config values that are right alone but not together."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable

from detectron2.config import CfgNode

from .rules import ListOf, Number, Text, problem

_SIDE = Number(1, 1 << 16, whole=True)
_CROP_SIZES = {
    "absolute": ListOf(_SIDE, (2,)),
    "absolute_range": ListOf(_SIDE, (2,)),
    "relative": ListOf(Number(0, 1, above=True), (2,)),
    "relative_range": ListOf(Number(0, 1, above=True), (2,)),
}


def combination_problems(cfg: CfgNode) -> list[str]:
    """What is wrong with values that others give a meaning."""
    return [
        wrong
        for check in (
            _crop_size,
            _scale_range,
            _sizes_with_range,
            _iou_labels,
            _clip_norm,
            _nesterov,
            _steps,
            _world,
            _expected_results,
        )
        if (wrong := _unless_missing(check, cfg))
    ]


def _unless_missing(check: Callable[[CfgNode], str], cfg: CfgNode) -> str:
    # Of a key that is missing there is nothing to say; a value of another type the table names.
    try:
        return check(cfg)
    except (AttributeError, TypeError):
        return ""


def _crop_size(cfg: CfgNode) -> str:
    crop = cfg.INPUT.CROP
    if not crop.ENABLED or crop.TYPE not in _CROP_SIZES:
        return ""
    wrong = problem("INPUT.CROP.SIZE", _CROP_SIZES[crop.TYPE], crop.SIZE)
    if wrong:
        return f"{wrong} where INPUT.CROP.TYPE is {crop.TYPE!r}"
    if crop.TYPE == "absolute_range" and crop.SIZE[0] > crop.SIZE[1]:
        return f"INPUT.CROP.SIZE is {crop.SIZE}; an absolute_range takes the smaller size first"
    return ""


def _scale_range(cfg: CfgNode) -> str:
    given = cfg.INPUT.SCALE_RANGE
    if len(given) == 2 and given[0] > given[1]:
        return f"INPUT.SCALE_RANGE is {given}; it takes the smaller ratio first"
    return ""


def _sizes_with_range(cfg: CfgNode) -> str:
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if len(cfg.INPUT.SCALE_RANGE) and (len(sizes) != 1 or sizes[0] < 1):
        return (
            f"INPUT.MIN_SIZE_TRAIN is {sizes}; with INPUT.SCALE_RANGE it takes one size, which the "
            "range multiplies"
        )
    return ""


def _iou_labels(cfg: CfgNode) -> str:
    thresholds, labels = cfg.MODEL.RETINANET.IOU_THRESHOLDS, cfg.MODEL.RETINANET.IOU_LABELS
    if list(thresholds) != sorted(thresholds):
        return f"MODEL.RETINANET.IOU_THRESHOLDS is {thresholds}; it takes the smallest first"
    if len(labels) != len(thresholds) + 1:
        return (
            f"MODEL.RETINANET.IOU_LABELS is {labels}; it takes {len(thresholds) + 1}, one more "
            f"than IOU_THRESHOLDS {thresholds}"
        )
    return ""


def _clip_norm(cfg: CfgNode) -> str:
    # Infinity is the norm of the largest gradient.
    norm = cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE
    if not norm > 0:
        return f"SOLVER.CLIP_GRADIENTS.NORM_TYPE is {norm}; it takes a number above 0, such as 2.0"
    return ""


def _nesterov(cfg: CfgNode) -> str:
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD" and solver.NESTEROV and not solver.MOMENTUM > 0:
        return f"SOLVER.MOMENTUM is {solver.MOMENTUM}; with SOLVER.NESTEROV it takes more than 0"
    return ""


def _steps(cfg: CfgNode) -> str:
    steps = list(cfg.SOLVER.STEPS)
    if steps != sorted(set(steps)):
        return f"SOLVER.STEPS is {tuple(steps)}; it takes each iteration once, the smallest first"
    return ""


def _world(cfg: CfgNode) -> str:
    world, batch = cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SOLVER.IMS_PER_BATCH
    if world and batch % world:
        return (
            f"SOLVER.REFERENCE_WORLD_SIZE is {world}, by which SOLVER.IMS_PER_BATCH {batch} cannot "
            "be divided"
        )
    return ""


def _expected_results(cfg: CfgNode) -> str:
    for entry in cfg.TEST.EXPECTED_RESULTS:
        is_known = isinstance(entry, (list, tuple)) and len(entry) == 4
        if not is_known or not (
            all(map(Text(empty=False).accepts, entry[:2]))
            and Number(-math.inf).accepts(entry[2])
            and Number(0).accepts(entry[3])
        ):
            return (
                f"TEST.EXPECTED_RESULTS is {reprlib.repr(cfg.TEST.EXPECTED_RESULTS)}; it takes a "
                "list, each a task, a metric, its value and a tolerance, such as "
                "['bbox', 'AP', 38.5, 0.2]"
            )
    return ""
