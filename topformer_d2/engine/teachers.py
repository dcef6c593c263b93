"""The teachers of MODEL.TEACHER, which a model that is trained learns from."""

from __future__ import annotations

import os
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from ..checkpoint import SafeCheckpointer, local_file
from ..config import complete_config, find_config, is_model, model_tasks
from ..data import register_folders
from ..errors import InputError, about
from ..files import is_remote
from ..logs import get_logger
from ..modeling import build_model
from ..modeling.distillation import (
    BoxLesson,
    Distillation,
    ImageLesson,
    Lesson,
    PixelLesson,
    Teacher,
)
from ..modeling.heads import SegmentationHead
from ..modeling.meta_arch import TopFormerMultiTask, TopFormerSegmentor
from ..tasks import BOXES, IMAGES, PIXELS, Task

logger = get_logger(__name__)

NODES = {"PIXELS": PIXELS, "BOXES": BOXES, "IMAGES": IMAGES}


def check_teachers(cfg: CfgNode) -> dict[str, CfgNode]:
    """Check what can be told of MODEL.TEACHER without its models: before a run does anything else.

    Args:
        cfg: complete.

    Returns:
        The config of each teacher by its node, PIXELS, BOXES or IMAGES.

    Raises:
        InputError: a teacher's config or its weights are missing, it has other classes, or all
            weights of its terms are 0.
    """
    configs = {}
    for node, task in NODES.items():
        keys = cfg.MODEL.TEACHER[node]
        if not keys.CONFIG:
            continue
        where = f"MODEL.TEACHER.{node}.CONFIG {keys.CONFIG!r}"
        weights = [key for key in keys if key.endswith("_WEIGHT")]
        if not any(keys[key] for key in weights):
            raise InputError(
                f"{where} teaches nothing, as all of {', '.join(weights)} beside it are 0.0: set "
                "one above 0, or CONFIG to ''"
            )
        configs[node] = _read_config(where, task, keys, cfg)
        if keys.WEIGHTS and not is_model(keys.WEIGHTS) and not is_remote(keys.WEIGHTS):
            with about(f"MODEL.TEACHER.{node}.WEIGHTS"):
                local_file(keys.WEIGHTS)
    return configs


def check_teachers_are_kept(cfg: CfgNode) -> None:
    """Raise InputError where a file of a teacher is in OUTPUT_DIR, where a run overwrites it.

    Args:
        cfg: complete.
    """
    output = os.path.realpath(cfg.OUTPUT_DIR)
    for node, keys in cfg.MODEL.TEACHER.items():
        for key in ("CONFIG", "WEIGHTS"):
            path = keys[key]
            if os.path.isfile(path) and os.path.dirname(os.path.realpath(path)) == output:
                raise InputError(
                    f"MODEL.TEACHER.{node}.{key} {path!r} is in OUTPUT_DIR, where this run would "
                    "overwrite it: set another OUTPUT_DIR"
                )


def attach_teachers(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """Give a model that is to be trained the teachers that MODEL.TEACHER names.

    They run in its training alone. What it has of them itself are the convolutions for features of
    another width; all of it is in `model.distillation`.

    Args:
        model: of the config, adapted to meta_arch.contract and not wrapped; it is returned.

    Raises:
        InputError: a teacher cannot be built or loaded whole, or its task, its classes, its anchors
            or its features do not fit the model's.
    """
    cfg = complete_config(cfg)
    lessons: dict[str, Lesson] = {}
    known: dict[tuple[str, str], Teacher] = {}
    for node, config in check_teachers(cfg).items():
        keys, task = cfg.MODEL.TEACHER[node], NODES[node]
        where = f"MODEL.TEACHER.{node}.CONFIG {keys.CONFIG!r}"
        teacher = known.get((keys.CONFIG, keys.WEIGHTS))
        with about(f"MODEL.TEACHER.{node}.WEIGHTS {keys.WEIGHTS!r}" if keys.WEIGHTS else where):
            teacher = teacher or _load(config, keys.WEIGHTS, cfg, model)
        known[keys.CONFIG, keys.WEIGHTS] = teacher
        lessons[task.name] = _LESSONS[node](where, model, teacher, config, cfg)
        logger.info("%s teaches %s", where, task.labels)
    if lessons:
        model.add_module("distillation", Distillation(lessons).to(model.device))
    return model


def teacher_digests(model: nn.Module) -> dict[str, str]:
    """SHA-256 of the weights of a model's teachers, by what a message calls them."""
    distillation = getattr(model, "distillation", None)
    lessons = {} if distillation is None else distillation.lessons
    return {
        f"the weights of MODEL.TEACHER.{node} (SHA-256)": lessons[task.name].teacher.digest()
        for node, task in NODES.items()
        if task.name in lessons
    }


def _read_config(where: str, task: Task, keys: CfgNode, cfg: CfgNode) -> CfgNode:
    """A teacher's config; InputError where it is not read, or its task or classes do not fit."""
    if task.name not in model_tasks(cfg):
        raise InputError(
            f"{where} is a teacher for {task.labels}, which MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r} does not learn: set it to ''"
        )
    with about(where):
        try:
            config = find_config(keys.CONFIG, ["MODEL.DEVICE", str(cfg.MODEL.DEVICE)])
        finally:
            # A name of DATASETS.FOLDERS means what the student's config says.
            register_folders(cfg)
        tasks = model_tasks(config)
    if task.name not in tasks:
        raise InputError(
            f"{where} does not learn {task.labels}: its MODEL.META_ARCHITECTURE is "
            f"{config.MODEL.META_ARCHITECTURE!r}"
        )
    _check_classes(where, task, config, cfg)
    return config


def _load(config: CfgNode, weights: str, cfg: CfgNode, student: Any) -> Teacher:
    weights = weights or config.MODEL.WEIGHTS
    if weights:
        config.defrost()
        config.MODEL.BASELINE.PRETRAINED = False
        config.freeze()
    try:
        model = build_model(config)
    finally:
        register_folders(cfg)
    if weights:
        SafeCheckpointer(model, require_all=True).load(weights)
    elif not getattr(model, "is_trained", False):
        raise InputError("it names no weights: name them by WEIGHTS, beside CONFIG")
    flips = config.INPUT.FORMAT != cfg.INPUT.FORMAT
    mean, std = student.pixel_mean, student.pixel_std
    return Teacher(model, of_mean=mean, of_std=std, flips_channels=flips)


def _check_classes(where: str, task: Task, config: CfgNode, cfg: CfgNode) -> None:
    """InputError where a teacher has other classes."""
    numbers = [each.MODEL[task.config_node].NUM_CLASSES for each in (config, cfg)]
    names = [list(each.DATASETS.get(task.classes_key, ())) for each in (config, cfg)]
    if numbers[0] != numbers[1]:
        raise InputError(
            f"{where} has {numbers[0]} {task.classes}, and this config {numbers[1]} "
            f"({task.num_classes_key}): teach with a model of the same classes"
        )
    if all(len(each) == numbers[0] for each in names) and names[0] != names[1]:
        other = next(pair for pair in zip(*names, strict=True) if pair[0] != pair[1])
        raise InputError(
            f"{where} has other {task.classes} than this config (DATASETS.{task.classes_key}): "
            f"the first that differs is {other[0]!r} there and {other[1]!r} here"
        )


def _pixel_lesson(
    where: str, model: Any, teacher: Teacher, config: CfgNode, cfg: CfgNode
) -> PixelLesson:
    keys = cfg.MODEL.TEACHER.PIXELS
    if not isinstance(model, (TopFormerSegmentor, TopFormerMultiTask)) or not isinstance(
        model.sem_seg_head, SegmentationHead
    ):
        raise InputError(
            f"{where} needs the student's logits, which MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r} with MODEL.SEM_SEG_HEAD.NAME "
            f"{cfg.MODEL.SEM_SEG_HEAD.NAME!r} does not give in training: use TopFormerSegmentor "
            "or TopFormerMultiTask, and a head of this toolkit"
        )
    widths, names = {}, {}
    if keys.FEATURES_WEIGHT:
        own, theirs = (
            _head_features(each, c) for each, c in ((model, cfg), (teacher.model, config))
        )
        for stride, (name, channels) in own.items():
            if stride in theirs:
                names[name], widths[name] = theirs[stride][0], (channels, theirs[stride][1])
        if not widths:
            raise InputError(
                f"MODEL.TEACHER.PIXELS.FEATURES_WEIGHT is {keys.FEATURES_WEIGHT}, but the features "
                f"of {where} have the strides {list(theirs)}, and this model's {list(own)}: set it "
                "to 0.0"
            )
    return PixelLesson(
        teacher,
        logits_weight=keys.LOGITS_WEIGHT,
        temperature=keys.TEMPERATURE,
        features_weight=keys.FEATURES_WEIGHT,
        widths=widths,
        names=names,
    )


def _head_features(model: Any, cfg: CfgNode) -> dict[int, tuple[str, int]]:
    """By stride the name and the channels of what a segmentation head takes; of equals the last."""
    backbone = getattr(model.backbone, "bottom_up", model.backbone)
    shapes = backbone.output_shape()
    if BOXES.name not in model.tasks:
        shapes = model.backbone.output_shape()
    return {shapes[n].stride: (n, shapes[n].channels) for n in cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES}


def _box_lesson(
    where: str, model: Any, teacher: Teacher, config: CfgNode, cfg: CfgNode
) -> BoxLesson:
    keys = cfg.MODEL.TEACHER.BOXES
    _check_anchors(where, model, teacher.model)
    widths = {}
    if keys.FEATURES_WEIGHT:
        channels = [
            [each.backbone.output_shape()[name].channels for name in each.head_in_features]
            for each in (model, teacher.model)
        ]
        widths = {str(i): pair for i, pair in enumerate(zip(*channels, strict=True))}
    return BoxLesson(
        teacher,
        scores_weight=keys.SCORES_WEIGHT,
        boxes_weight=keys.BOXES_WEIGHT,
        features_weight=keys.FEATURES_WEIGHT,
        widths=widths,
    )


def _image_lesson(
    where: str, model: Any, teacher: Teacher, config: CfgNode, cfg: CfgNode
) -> ImageLesson:
    keys = cfg.MODEL.TEACHER.IMAGES
    return ImageLesson(teacher, logits_weight=keys.LOGITS_WEIGHT, temperature=keys.TEMPERATURE)


_LESSONS = {"PIXELS": _pixel_lesson, "BOXES": _box_lesson, "IMAGES": _image_lesson}


def _check_anchors(where: str, model: Any, teacher: Any) -> None:
    """InputError where a teacher's anchors or the meaning of its deltas are not the model's."""
    if not (model.has_anchors and teacher.has_anchors):
        raise InputError(f"{where} can teach boxes where both models are RetinaNets")
    own, theirs = _anchors(model), _anchors(teacher)
    for key in own:
        if own[key] != theirs[key]:
            raise InputError(
                f"{where} has other anchors than this config: {key} is {theirs[key]} there and "
                f"{own[key]} here; the two must be equal"
            )


def _anchors(model: Any) -> dict[str, Any]:
    generator = model.anchor_generator
    cells: list[Tensor] = list(generator.cell_anchors)
    return {
        "the stride of each level (MODEL.RETINANET.IN_FEATURES)": list(generator.strides),
        "the number of anchors (MODEL.ANCHOR_GENERATOR)": [len(each) for each in cells],
        "the anchors of a position (MODEL.ANCHOR_GENERATOR)": [each.tolist() for each in cells],
        "MODEL.ANCHOR_GENERATOR.OFFSET": generator.offset,
        "MODEL.RETINANET.BBOX_REG_WEIGHTS": tuple(model.box2box_transform.weights),
    }
