"""What each config key takes: one table of ranges for all the keys that are read.

Keys whose value names a part of a network, such as MODEL.TOPFORMER.SEMANTICS, are looked up where
that part is built.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode

from ..errors import InputError, did_you_mean
from .rules import Choice, ListOf, Number, Rule, Text

_INFINITY = math.inf


def _whole(low: int, high: float = _INFINITY) -> Number:
    return Number(low, high, whole=True)


_POSITIVE = Number(0, above=True)
_NOT_NEGATIVE = Number(0)
# Products of two or three of them must not leave float32.
_FACTOR = Number(0, 1e9)
_SHARE = Number(0, 1)
_BELOW_ONE = Number(0, 1, below=True)
_SIDE, _LONG_SIDE = _whole(1, 1 << 16), _whole(1, 1 << 20)
_CHANNELS = _whole(1, 1 << 16)
_CLASSES = _whole(1, 1 << 16)
_NAMES = ListOf(Text(empty=False))
_ANCHORS = ListOf(ListOf(_POSITIVE, least=1), least=1)

RANGES: dict[str, Rule] = {
    "MODEL.WEIGHTS": Text(),
    "MODEL.PIXEL_MEAN": ListOf(Number(-_INFINITY), (3,)),
    "MODEL.PIXEL_STD": ListOf(_POSITIVE, (3,)),
    "MODEL.FPN.IN_FEATURES": _NAMES,
    "MODEL.FPN.OUT_CHANNELS": _CHANNELS,
    "MODEL.FPN.FUSE_TYPE": Choice(("sum", "avg")),
    "MODEL.ANCHOR_GENERATOR.SIZES": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.OFFSET": _BELOW_ONE,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": _NAMES,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": _whole(-100, (1 << 16) - 1),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": _CLASSES,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": _CHANNELS,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": _whole(1, 64),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": _NOT_NEGATIVE,
    "MODEL.SEM_SEG_HEAD.FUSE_DEPTHWISE": Choice((None, True, False)),
    "MODEL.SEM_SEG_HEAD.DROPOUT": _BELOW_ONE,
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": ListOf(_CHANNELS),
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": ListOf(_whole(1, 1 << 10)),
    "MODEL.RETINANET.NUM_CLASSES": _CLASSES,
    "MODEL.RETINANET.IN_FEATURES": _NAMES,
    "MODEL.RETINANET.NUM_CONVS": _whole(0, 100),
    "MODEL.RETINANET.IOU_THRESHOLDS": ListOf(_SHARE),
    "MODEL.RETINANET.IOU_LABELS": ListOf(Choice((-1, 0, 1))),
    "MODEL.RETINANET.PRIOR_PROB": Number(0, 1, above=True, below=True),
    "MODEL.RETINANET.SCORE_THRESH_TEST": _SHARE,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": _whole(1),
    "MODEL.RETINANET.NMS_THRESH_TEST": _SHARE,
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": ListOf(_POSITIVE, (4,)),
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": _NOT_NEGATIVE,
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": Number(-1, 1),
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": _NOT_NEGATIVE,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": Choice(("smooth_l1", "giou", "diou", "ciou")),
    "MODEL.TOPFORMER.DROP_PATH_RATE": _BELOW_ONE,
    "MODEL.TOPFORMER.OUT_FEATURES": _NAMES,
    "MODEL.BASELINE.OUT_FEATURES": _NAMES,
    "MODEL.BASELINE.OUTPUT_STRIDE": Choice((32, 16, 8)),
    "MODEL.MULTITASK.INSTANCE_LOSS_WEIGHT": _NOT_NEGATIVE,
    "DATASETS.TRAIN": _NAMES,
    "DATASETS.TEST": _NAMES,
    "DATASETS.TRAIN_WEIGHTS": ListOf(_POSITIVE),
    "DATALOADER.NUM_WORKERS": _whole(0, 1024),
    "INPUT.MIN_SIZE_TRAIN": ListOf(_whole(0, 1 << 16)),
    "INPUT.MAX_SIZE_TRAIN": _LONG_SIDE,
    "INPUT.MIN_SIZE_TEST": _whole(0, 1 << 16),
    "INPUT.MAX_SIZE_TEST": _LONG_SIDE,
    "INPUT.TEST_SIZE_DIVISOR": _whole(1, 4096),
    "INPUT.SCALE_RANGE": ListOf(Number(0, 100, above=True), (0, 2)),
    "INPUT.RANDOM_FLIP": Choice(("horizontal", "vertical", "none")),
    "INPUT.FORMAT": Choice(("RGB", "BGR")),
    "INPUT.CROP.TYPE": Choice(("absolute", "absolute_range", "relative", "relative_range")),
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": Number(0, 1, above=True),
    "SOLVER.OPTIMIZER": Choice(("ADAMW", "SGD")),
    "SOLVER.LR_SCHEDULER_NAME": Text(empty=False),
    "SOLVER.MAX_ITER": _whole(1, (1 << 31) - 1),
    "SOLVER.BASE_LR": _FACTOR,
    "SOLVER.HEAD_LR_FACTOR": _FACTOR,
    "SOLVER.BIAS_LR_FACTOR": _FACTOR,
    "SOLVER.MOMENTUM": _BELOW_ONE,
    "SOLVER.WEIGHT_DECAY": _FACTOR,
    "SOLVER.WEIGHT_DECAY_NORM": _FACTOR,
    "SOLVER.WEIGHT_DECAY_BIAS": Number(0, 1e9, or_none=True),
    "SOLVER.POLY_LR_POWER": _NOT_NEGATIVE,
    "SOLVER.GAMMA": _POSITIVE,
    "SOLVER.STEPS": ListOf(_whole(0)),
    "SOLVER.WARMUP_FACTOR": _SHARE,
    "SOLVER.WARMUP_ITERS": _whole(0, (1 << 31) - 1),
    "SOLVER.WARMUP_METHOD": Choice(("linear", "constant")),
    "SOLVER.CHECKPOINT_PERIOD": _whole(1),
    "SOLVER.IMS_PER_BATCH": _whole(1, 1 << 20),
    "SOLVER.REFERENCE_BATCH": _whole(0, 1 << 20),
    "SOLVER.REFERENCE_WORLD_SIZE": _whole(0, 1 << 20),
    "SOLVER.ACCUMULATION_STEPS": _whole(1, 1 << 20),
    "SOLVER.EMA_DECAY": _BELOW_ONE,
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": _POSITIVE,
    "TEST.EVAL_PERIOD": _whole(0),
    "TEST.DETECTIONS_PER_IMAGE": _whole(1),
    "TEST.BEST_METRICS": _NAMES,
    "TEST.AUG.MIN_SIZES": ListOf(_SIDE),
    "TEST.AUG.MAX_SIZE": _LONG_SIDE,
    "TEST.PRECISE_BN.NUM_ITER": _whole(1),
    "OUTPUT_DIR": Text(empty=False),
    "SEED": _whole(-1, (1 << 31) - 1),
    "VIS_PERIOD": _whole(0),
}

_CROP_SIZES = {
    "absolute": ListOf(_SIDE, (2,)),
    "absolute_range": ListOf(_SIDE, (2,)),
    "relative": ListOf(Number(0, 1, above=True), (2,)),
    "relative_range": ListOf(Number(0, 1, above=True), (2,)),
}


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
            _sizes_with_range,
            _iou_labels,
            _clip_norm,
            _nesterov,
            _steps,
            _world,
            _expected_results,
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
    if not crop.ENABLED or crop.TYPE not in _CROP_SIZES:
        return ""
    problem = _problem("INPUT.CROP.SIZE", _CROP_SIZES[crop.TYPE], crop.SIZE)
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
            and Number(-_INFINITY).accepts(entry[2])
            and _NOT_NEGATIVE.accepts(entry[3])
        ):
            return (
                f"TEST.EXPECTED_RESULTS is {reprlib.repr(cfg.TEST.EXPECTED_RESULTS)}; it takes a "
                "list, each a task, a metric, its value and a tolerance, such as "
                "['bbox', 'AP', 38.5, 0.2]"
            )
    return ""
