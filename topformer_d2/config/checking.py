"""Check the values of a config against the table of ranges, and against each other."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode

from ..errors import InputError, did_you_mean
from .ranges import CROP_SIZES, RANGES
from .rules import Choice, Number, Rule, Text


def check_values(cfg: CfgNode) -> None:
    """Raise one InputError that names every key whose value is out of its range, and the range.

    Keys that `cfg` does not have are not looked at.
    """
    problems = [_problem(key, rule, value) for key, rule, value in _values_of(cfg, RANGES)]
    problems += _of_several_keys(cfg)
    problems = [problem for problem in problems if problem]
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError(f"{len(problems)} values of the config: " + "; and ".join(problems))


def _values_of(cfg: CfgNode, rules: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, rule in rules.items():
        node: Any = cfg
        for name in key.split("."):
            if not isinstance(node, dict) or name not in node:
                break
            node = node[name]
        else:
            yield key, rule, node


def _problem(key: str, rule: Rule, value: Any) -> str:
    """What is wrong with the value, or ""."""
    if rule.accepts(value):
        return ""
    hint = ""
    if isinstance(rule, Choice) and isinstance(value, str):
        hint = did_you_mean(value, [name for name in rule.names if isinstance(name, str)])
    elif numbers := _texts_of_numbers(value):
        # YAML reads a number with an exponent as text, unless it has a point and a sign.
        hint = f" ({numbers[0]!r} is text to YAML: write {_as_yaml(numbers[0])})"
    return f"{key} is {reprlib.repr(value)}{hint}; it takes {rule}"


def _texts_of_numbers(value: Any) -> list[str]:
    values: Sequence = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in values if isinstance(text, str) and _as_yaml(text)]


def _as_yaml(text: str) -> str:
    try:
        return repr(float(text))
    except ValueError:
        return ""


def _of_several_keys(cfg: CfgNode) -> list[str]:
    """What is wrong with values that others give a meaning."""
    return [
        problem
        for check in (
            _crop_size,
            _scale_range,
            _augmentation_ranges,
            _balanced_crop,
            _ignored_fill,
            _sizes_with_range,
            _iou_labels,
            _clip_norm,
            _nesterov,
            _steps,
            _world,
            _expected_results,
            _patience,
            _hard_pixels,
            _focal_alpha,
            _teacher_without_config,
        )
        if (problem := _unless_missing(check, cfg))
    ]


def _unless_missing(check: Callable[[CfgNode], str], cfg: CfgNode) -> str:
    # Of a key that is missing there is nothing to say; a value of another type the table names.
    try:
        return check(cfg)
    except (AttributeError, TypeError):
        return ""


def _crop_size(cfg: CfgNode) -> str:
    crop = cfg.INPUT.CROP
    if not crop.ENABLED or crop.TYPE not in CROP_SIZES:
        return ""
    problem = _problem("INPUT.CROP.SIZE", CROP_SIZES[crop.TYPE], crop.SIZE)
    if problem:
        return f"{problem} where INPUT.CROP.TYPE is {crop.TYPE!r}"
    if crop.TYPE == "absolute_range" and crop.SIZE[0] > crop.SIZE[1]:
        return f"INPUT.CROP.SIZE is {crop.SIZE}; an absolute_range takes the smaller size first"
    return ""


def _scale_range(cfg: CfgNode) -> str:
    given = cfg.INPUT.SCALE_RANGE
    if len(given) == 2 and given[0] > given[1]:
        return f"INPUT.SCALE_RANGE is {given}; it takes the smaller ratio first"
    return ""


def _augmentation_ranges(cfg: CfgNode) -> str:
    keys = cfg.INPUT
    for name, given in {
        "WARP.SCALE": keys.WARP.SCALE,
        "BLUR.SIGMA": keys.BLUR.SIGMA,
        "NOISE.SIGMA": keys.NOISE.SIGMA,
        "JPEG.QUALITY": keys.JPEG.QUALITY,
        "CUTOUT.SIZE": keys.CUTOUT.SIZE,
        "CLS.AREA": keys.CLS.AREA,
    }.items():
        if len(given) == 2 and given[0] > given[1]:
            return f"INPUT.{name} is {given}; it takes the smaller number first"
    return ""


def _balanced_crop(cfg: CfgNode) -> str:
    crop = cfg.INPUT.CROP
    if crop.CLASS_BALANCED_PROB and not crop.ENABLED:
        return (
            f"INPUT.CROP.CLASS_BALANCED_PROB is {crop.CLASS_BALANCED_PROB}, but INPUT.CROP.ENABLED "
            "is False: set it to True"
        )
    return ""


def _ignored_fill(cfg: CfgNode) -> str:
    """Labels are of 8 bits, and parts of them become the ignored label."""
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    keys = cfg.INPUT
    probabilities = {"WARP": keys.WARP.PROB, "CUTOUT": keys.CUTOUT.PROB, "MOSAIC": keys.MOSAIC.PROB}
    fills = [name for name, prob in probabilities.items() if prob]
    if fills and not 0 <= ignored <= 255:
        return (
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {ignored}; with INPUT.{fills[0]} it takes a whole "
            "number from 0 to 255"
        )
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


def _patience(cfg: CfgNode) -> str:
    test = cfg.TEST
    if test.PATIENCE and not (test.BEST_METRICS and test.EVAL_PERIOD):
        return (
            f"TEST.PATIENCE is {test.PATIENCE}, which takes TEST.BEST_METRICS, such as "
            f"['sem_seg/mIoU'] or ['bbox/AP'], and a TEST.EVAL_PERIOD above 0: they are "
            f"{list(test.BEST_METRICS)} and {test.EVAL_PERIOD}"
        )
    return ""


def _hard_pixels(cfg: CfgNode) -> str:
    keys = cfg.MODEL.SEM_SEG_LOSS
    if keys.HARD_SHARE < 1 and keys.HARD_THRESHOLD > 0:
        return (
            f"MODEL.SEM_SEG_LOSS.HARD_SHARE is {keys.HARD_SHARE} and HARD_THRESHOLD "
            f"{keys.HARD_THRESHOLD}, which choose the same pixels: leave one of them at its "
            "default, 1.0 or 0.0"
        )
    return ""


def _focal_alpha(cfg: CfgNode) -> str:
    alpha = cfg.MODEL.RETINANET.FOCAL_LOSS_ALPHA
    if -1 < alpha < 0:
        return (
            f"MODEL.RETINANET.FOCAL_LOSS_ALPHA is {alpha}; it takes a number from 0 to 1, or -1, "
            "which turns it off"
        )
    return ""


def _teacher_without_config(cfg: CfgNode) -> str:
    for node, keys in cfg.MODEL.TEACHER.items():
        if keys.WEIGHTS and not keys.CONFIG:
            return (
                f"MODEL.TEACHER.{node}.WEIGHTS is {keys.WEIGHTS!r}, but CONFIG, which says what "
                "model has them, is ''"
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
