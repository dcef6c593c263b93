"""What a config says of its model: its tasks, its parts, its schedule."""

from __future__ import annotations

from detectron2.config import CfgNode as CN
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)
from fvcore.common.registry import Registry

from ..errors import InputError, did_you_mean
from ..tasks import BOXES, IMAGES, PIXELS, TASKS

# What Detectron2's own trainers run in place of SOLVER.SCHEDULE: both fall smoothly to 0.
SCHEDULE_FALLBACK = "WarmupCosineLR"


def schedule_name(cfg: CN) -> str:
    """The schedule of the toolkit's Trainer: SOLVER.SCHEDULE, or SOLVER.LR_SCHEDULER_NAME."""
    solver = cfg.SOLVER
    if solver.SCHEDULE and solver.LR_SCHEDULER_NAME == SCHEDULE_FALLBACK:
        return solver.SCHEDULE
    return solver.LR_SCHEDULER_NAME


def model_tasks(cfg: CN) -> tuple[str, ...]:
    """The names of the tasks that MODEL.META_ARCHITECTURE is trained for (topformer_d2.tasks).

    Raises:
        InputError: it is not registered, or neither a segmenter nor a dense detector.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    _check_registered(META_ARCH_REGISTRY, name, "MODEL.META_ARCHITECTURE")
    arch = META_ARCH_REGISTRY.get(name)
    tasks = getattr(arch, "tasks", None) or tuple(
        task.name
        for task in TASKS.values()
        if isinstance(arch, type) and issubclass(arch, task.architecture)
    )
    if not tasks:
        raise InputError(
            f"MODEL.META_ARCHITECTURE {name!r} is neither a SemanticSegmentor nor a dense detector "
            "such as RetinaNet nor TopFormerClassifier, which are what is trained here"
        )
    return tasks


def check_dense(cfg: CN) -> None:
    """Raise InputError where the model is a classifier, which is not for use by itself."""
    if IMAGES.name in model_tasks(cfg):
        raise InputError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}: classifiers are for "
            "pretraining, and are trained, evaluated and converted alone. Train a segmenter or a "
            "detector that starts from the checkpoint (MODEL.WEIGHTS)"
        )


def check_parts(cfg: CN) -> None:
    """Raise InputError where a part of the model has a name that is not registered."""
    tasks, model = model_tasks(cfg), cfg.MODEL
    _check_registered(BACKBONE_REGISTRY, model.BACKBONE.NAME, "MODEL.BACKBONE.NAME")
    if PIXELS.name in tasks:
        name = model.SEM_SEG_HEAD.NAME
        _check_registered(SEM_SEG_HEADS_REGISTRY, name, "MODEL.SEM_SEG_HEAD.NAME")
    if BOXES.name in tasks:
        name = model.ANCHOR_GENERATOR.NAME
        _check_registered(ANCHOR_GENERATOR_REGISTRY, name, "MODEL.ANCHOR_GENERATOR.NAME")


def _check_registered(registry: Registry, name: str, key: str) -> None:
    if name not in registry:
        known = [registered for registered, _ in registry]
        hint = did_you_mean(str(name), known)
        raise InputError(f"{key} is {name!r}, which is not registered{hint}")


def single_task_opts(cfg: CN, task: str) -> list[str]:
    """KEY VALUE pairs that make a joint config (TopFormerMultiTask) the model of one task alone.

    The data, its augmentation, its order and the recipe stay equal. One thing differs: where images
    are smaller than the crop, a segmenter pads them to the crop, the others to the batch's largest.

    Args:
        cfg: the joint config.
        task: "sem_seg" or "instances".
    """
    opts = ["TEST.BEST_METRICS", "[]", "TEST.PATIENCE", "0", "MODEL.META_ARCHITECTURE"]
    if task == BOXES.name:
        # An image without objects is one of a joint model's, and dropping it changes the order.
        return [*opts, cfg.MODEL.MULTITASK.DETECTOR, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"]
    return [*opts, "TopFormerSegmentor", "MODEL.BACKBONE.NAME", "build_topformer_backbone"]
