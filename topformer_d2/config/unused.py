"""Keys that a config sets and that nothing of its training reads."""

from __future__ import annotations

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from ..tasks import BOXES, IMAGES, PIXELS, Task
from .keys import add_topformer_config
from .merging import flat_keys
from .model import model_tasks

# Details of INPUT's augmentations, which their PROB turns on.
_DETAILS = {
    "WARP": ("ROTATION", "SCALE", "SHEAR", "TRANSLATION", "PERSPECTIVE"),
    "BLUR": ("SIGMA",),
    "NOISE": ("SIGMA",),
    "JPEG": ("QUALITY",),
    "CUTOUT": ("MAX_HOLES", "SIZE"),
}
# What the whole name of a key begins with, and the tasks whose models read it.
_OF_TASKS: dict[str, tuple[Task, ...]] = {
    "MODEL.SEM_SEG_LOSS.": (PIXELS,),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": (PIXELS,),
    "MODEL.RETINANET.QUALITY_TARGETS": (BOXES,),
    "MODEL.RETINANET.FOCAL_LOSS_": (BOXES,),
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": (BOXES,),
    "MODEL.CLS_HEAD.LABEL_SMOOTHING": (IMAGES,),
    "INPUT.CLS.": (IMAGES,),
    **{f"INPUT.{name}.PROB": (PIXELS, BOXES) for name in (*_DETAILS, "MOSAIC", "COPY_PASTE")},
}
# Keys that say how something is done: the key that says whether, and its value that says no.
_BESIDE: dict[str, tuple[str, object]] = {
    "MODEL.SEM_SEG_LOSS.EDGE_WIDTH": ("MODEL.SEM_SEG_LOSS.EDGE_WEIGHT", 1.0),
    "MODEL.SEM_SEG_LOSS.HARD_MINIMUM": ("MODEL.SEM_SEG_LOSS.HARD_THRESHOLD", 0.0),
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": ("MODEL.RETINANET.QUALITY_TARGETS", True),
    "MODEL.TEACHER.PIXELS.TEMPERATURE": ("MODEL.TEACHER.PIXELS.LOGITS_WEIGHT", 0.0),
    "MODEL.TEACHER.IMAGES.TEMPERATURE": ("MODEL.TEACHER.IMAGES.LOGITS_WEIGHT", 0.0),
    "INPUT.CLS.RAND_AUGMENT_MAGNITUDE": ("INPUT.CLS.RAND_AUGMENT_OPS", 0),
    **{
        f"INPUT.{name}.{detail}": (f"INPUT.{name}.PROB", 0.0)
        for name, details in _DETAILS.items()
        for detail in details
    },
}
_TEACHERS = tuple(f"MODEL.TEACHER.{node}." for node in ("PIXELS", "BOXES", "IMAGES"))


def keys_without_effect(cfg: CN) -> list[str]:
    """What is set and changes nothing in a training of `cfg`, each as "KEY VALUE (the reason)".

    Args:
        cfg: complete, as load_config gives it.
    """
    default = get_cfg()
    add_topformer_config(default)
    defaults, values = dict(flat_keys(default)), dict(flat_keys(cfg))
    tasks = model_tasks(cfg)
    return [
        f"{key} {value!r} ({reason})"
        for key, value in values.items()
        if key in defaults and value != defaults[key] and (reason := _reason(key, values, tasks))
    ]


def _reason(key: str, values: dict, tasks: tuple[str, ...]) -> str:
    for prefix, readers in _OF_TASKS.items():
        if key.startswith(prefix) and not {task.name for task in readers} & {*tasks}:
            return f"the model learns no {' or '.join(task.labels for task in readers)}"
    for teacher in _TEACHERS:
        if key.startswith(teacher) and not values[f"{teacher}CONFIG"]:
            return f"{teacher}CONFIG names no teacher"
    if key in _BESIDE:
        switch, off = _BESIDE[key]
        if values[switch] == off:
            return f"{switch} is {off}"
    return ""
