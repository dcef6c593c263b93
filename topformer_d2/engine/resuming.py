"""What is checked of earlier checkpoints before a trainer starts, or resumes from one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from torch import Tensor, nn

from ..checkpoint import training_checkpoints
from ..config import flat_keys
from ..errors import InputError, shortened
from ..files import is_remote
from ..logs import get_logger
from .ema import AverageWeights

logger = get_logger(__name__)

# PyTorch's optimizers whose state is known: what each parameter has in its own shape. Without
# momentum SGD keeps nothing, so that only Adam's are needed.
_KNOWN = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
_OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
_SHAPED = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")

# Keys, beside TEST's and those that end in _TEST, that do not change what is trained: where it
# runs, what is written and what is evaluated. A resumed run does not read SEED, MODEL.WEIGHTS and
# PRETRAINED: they are of the start.
_NOT_OF_TRAINING = {
    *("CUDNN_BENCHMARK", "DATALOADER.NUM_WORKERS", "DATASETS.TEST", "INPUT.TEST_SIZE_DIVISOR"),
    *("LOGGERS", "MODEL.BASELINE.PRETRAINED", "MODEL.DEVICE", "MODEL.WEIGHTS", "OUTPUT_DIR"),
    # What is in these files is compared (teacher_digests).
    *(f"MODEL.TEACHER.{node}.WEIGHTS" for node in ("PIXELS", "BOXES", "IMAGES")),
    *("SEED", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.MAX_TIME", "SOLVER.PROCESS_TIMEOUT"),
    *("VERSION", "VIS_PERIOD"),
}
# What the optimizer's state has, and goes on with.
_OF_OPTIMIZER = (
    *("BASE_LR", "BIAS_LR_FACTOR", "HEAD_LR_FACTOR", "MOMENTUM", "NESTEROV"),
    *("WEIGHT_DECAY", "WEIGHT_DECAY_BIAS", "WEIGHT_DECAY_NORM"),
)
OF_OPTIMIZER = frozenset(f"SOLVER.{key}" for key in _OF_OPTIMIZER)


_FOLDERS = "DATASETS.FOLDERS."
# Keys of an entry there whose values are paths; CLASSES may be names.
_PATHS = (".IMAGES", ".LABELS", ".BOXES", ".CLASSES", ".LIST", ".CLASS_FOLDERS")


def training_keys(cfg: CfgNode) -> dict[str, Any]:
    """The keys of a config that change what is trained, as plain values by their whole names."""
    return {
        key: _plain(value)
        for key, value in flat_keys(cfg)
        if not (key in _NOT_OF_TRAINING or key.startswith("TEST.") or key.endswith("_TEST"))
    }


def _plain(value: Any) -> Any:
    """A value in which a tuple is a list, as they are the same in a config."""
    return [_plain(each) for each in value] if _is_list(value) else value


def warn_of_changes(earlier: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """One warning of all that differs in the training that is resumed.

    Args:
        earlier: training_keys of the run that wrote the checkpoint.
        now: those of this run.
        folder: OUTPUT_DIR.
    """
    names = [name for name in {**now, **earlier} if _has_changed(name, earlier, now)]
    if not names:
        return
    changed = "; ".join(
        f"{name}: {shortened(earlier.get(name))} -> {shortened(now.get(name))}" for name in names
    )
    kept = ", ".join(name for name in names if name in OF_OPTIMIZER)
    ending = (
        f". Of {kept} the checkpoint's own goes on; to train with the config's, start anew in "
        "another OUTPUT_DIR, with MODEL.WEIGHTS of this one"
    )
    logger.warning(
        "%s goes on with another config than its checkpoint has: %s%s",
        *(folder, changed, ending if kept else ""),
    )


def _has_changed(name: str, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    old, new = earlier.get(name), now.get(name)
    if not name.startswith(_FOLDERS):
        # A key that only one of them has is another version's.
        return name in earlier and name in now and old != new
    # Entries differ in keys; one that is not written is an empty one. Of those that are not
    # trained on nothing is trained.
    dataset = name.removeprefix(_FOLDERS).split(".")[0]
    trained = {*earlier.get("DATASETS.TRAIN", (dataset,)), *now.get("DATASETS.TRAIN", (dataset,))}
    if dataset not in trained or not (old or new):
        return False
    if name.endswith(_PATHS) and isinstance(old, str) and isinstance(new, str):
        return old != new and (is_remote(old) or os.path.realpath(old) != os.path.realpath(new))
    return bool(old != new)


def warn_of_earlier_run(folder: str) -> None:
    """Warn of checkpoints in OUTPUT_DIR that a new run will overwrite."""
    earlier = [] if not folder or is_remote(folder) else training_checkpoints(folder)
    if earlier:
        names = ", ".join(path.name for path, _ in earlier[:3])
        logger.warning(
            "%s has %d checkpoints of an earlier run (%s%s), which this one will overwrite: "
            "resuming goes on from them, and another OUTPUT_DIR keeps them",
            *(folder, len(earlier), names, ", ..." if len(earlier) > 3 else ""),
        )


def check_same_training(state: Mapping[str, Any], trainer: Any, batch_scale: float) -> None:
    """Whether a state is of a training with this trainer's config.

    Args:
        state: what Trainer.state_dict gave.
        trainer: Trainer, whose hooks are registered.
        batch_scale: its own.

    Raises:
        InputError: it is not; the message names the key of the config.
        ValueError: the state is not one of any trainer, and says why.
    """
    folder, cfg = trainer.cfg.OUTPUT_DIR, trainer.cfg
    earlier = state.get("config", {})  # older checkpoints lack it
    if not isinstance(earlier, Mapping):
        raise ValueError("its config is damaged")
    saved = state["_trainer"]["optimizer"]["param_groups"]
    own = trainer.optimizer.state_dict()["param_groups"]
    if not all(isinstance(group, Mapping) and _is_list(group.get("params")) for group in saved):
        raise ValueError("the optimizer's param_groups are damaged")
    if [(g.keys(), len(g["params"])) for g in saved] != [(g.keys(), len(g["params"])) for g in own]:
        raise InputError(
            f"{folder} was trained with another SOLVER.OPTIMIZER, another MODEL.FREEZE, or other "
            "rates and decays by group, as MODEL.MULTITASK.UNCERTAINTY_WEIGHTING, "
            "MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT and a teacher's FEATURES_WEIGHT add some: resume "
            "with its config, or start anew in another OUTPUT_DIR with its last checkpoint as "
            "MODEL.WEIGHTS"
        )
    if state.get("batch_scale", 1.0) != batch_scale:
        raise InputError(
            f"{folder} was trained with another SOLVER.IMS_PER_BATCH or REFERENCE_BATCH (or, with "
            "REFERENCE_WORLD_SIZE, number of processes), whose iterations are others: resume with "
            "those"
        )
    batch = earlier.get("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH)
    if cfg.SOLVER.EPOCHS and batch != cfg.SOLVER.IMS_PER_BATCH:
        raise InputError(
            f"{folder} was trained with SOLVER.IMS_PER_BATCH {batch}, of which SOLVER.EPOCHS makes "
            "another number of iterations: resume with that, or with SOLVER.EPOCHS 0 and the "
            "SOLVER.MAX_ITER to train to"
        )
    of_hooks = state.get("hooks", {})
    if AverageWeights.__qualname__ in of_hooks and not cfg.SOLVER.EMA_DECAY:
        raise InputError(
            f"{folder} was trained with SOLVER.EMA_DECAY, and its checkpoint has the averaged "
            "weights: resume with it"
        )


def check_state(state: Mapping[str, Any], trainer: Any) -> None:
    """Whether the optimizer's and the learning rate's state can be gone on from.

    PyTorch loads whatever it is given, and fails in the first step, or trains on from nothing.

    Args:
        state, trainer: as for check_same_training.

    Raises:
        ValueError: they cannot; the message says why.
    """
    inner, optimizer = state["_trainer"], trainer.optimizer
    saved = inner["optimizer"]
    if isinstance(optimizer, _KNOWN):
        _check_groups(saved["param_groups"], optimizer.state_dict()["param_groups"])
        _check_moments(saved["state"], trainer.model, optimizer)
    counted = state.get("optimizer_states")  # older checkpoints lack it
    if counted not in (None, len(saved["state"])):
        raise ValueError(
            f"the optimizer's state has {len(saved['state'])} parameters, and had {counted!r} "
            "when it was written"
        )
    for hook in trainer._hooks:
        if isinstance(hook, hooks.LRScheduler):
            name = hooks.LRScheduler.__qualname__
            _check_rates(state.get("hooks", {}).get(name) or {}, hook.state_dict(), name)
    for key, value in (trainer._trainer.state_dict().get("grad_scaler") or {}).items():
        if not _is_like(inner["grad_scaler"][key], value):
            raise ValueError(f"{key!r} of the state of mixed precision is damaged")


def _check_groups(saved: list[Mapping], own: list[Mapping]) -> None:
    for number, (group, expected) in enumerate(zip(saved, own, strict=True)):
        for key, value in expected.items():
            if not (_is_like(group[key], value) if key != "params" else group[key] == value):
                raise ValueError(f"{key!r} of the optimizer's group {number} is damaged")


def _check_moments(state: Mapping, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    needed = () if isinstance(optimizer, torch.optim.SGD) else _OF_ADAM
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in state.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise ValueError(f"the optimizer's state has {index!r}, which is not a parameter")
        parameter = parameters[index]
        where = f"the optimizer's state of {names.get(id(parameter), index)}"
        if not isinstance(values, Mapping):
            raise ValueError(f"{where} is a {type(values).__name__}")
        if missing := [key for key in needed if key not in values]:
            raise ValueError(f"{where} has no {missing[0]!r}")
        for key, value in values.items():
            if key == "step" and not _is_number(value):
                raise ValueError(f"'step' of {where} is not a number")
            if key in _SHAPED and value is not None:
                _check_moment(value, parameter, f"{key!r} of {where}")


def _check_moment(value: Any, parameter: nn.Parameter, where: str) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{where} is not a tensor of floats")
    if value.shape != parameter.shape:
        raise ValueError(
            f"{where} has the shape {tuple(value.shape)}, and the parameter "
            f"{tuple(parameter.shape)}"
        )
    if value.isnan().any():
        raise ValueError(f"{where} has NaN")


def _check_rates(saved: Mapping, own: Mapping, name: str) -> None:
    if not saved and own:
        raise ValueError(f"it has no state of the learning rate ({name}), which would start anew")
    for key in ("base_lrs", "last_epoch"):
        if key in own and not _is_like(saved.get(key), own[key]):
            raise ValueError(f"{key!r} of the learning rate's state ({name}) is damaged")


def _is_like(value: Any, own: Any) -> bool:
    """Whether a value of an optimizer's group has the kind that it has in another one."""
    if _is_list(own):
        return _is_list(value) and len(value) == len(own) and all(map(_is_like, value, own))
    if own is None or isinstance(own, bool):
        return value is None or isinstance(value, bool)
    if _is_number(own):
        return _is_number(value)
    return isinstance(value, type(own))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, or a tensor of one."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and bool(value.isfinite().all())
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
