"""The recipe's optimizer groups, learning-rate schedule and batch."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from detectron2.solver.build import (
    GradientClipType,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from detectron2.solver.build import (
    build_lr_scheduler as build_detectron2_lr_scheduler,
)
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from ..config import complete_config, schedule_name
from ..errors import InputError, look_up
from ..logs import get_logger
from ..modeling.recipe import forget_recipe

logger = get_logger(__name__)

# What is counted in iterations.
_IN_ITERATIONS = (
    "SOLVER.MAX_ITER",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.STEPS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)


def batch_scale(cfg: CfgNode) -> float:
    """SOLVER.IMS_PER_BATCH / REFERENCE_BATCH; 1 where REFERENCE_BATCH is 0."""
    solver = complete_config(cfg).SOLVER
    if not solver.REFERENCE_BATCH:
        return 1.0
    return solver.IMS_PER_BATCH / solver.REFERENCE_BATCH


def scale_to_batch(cfg: CfgNode) -> CfgNode:
    """The config with rate and iterations as batch_scale says; the log has what it changed.

    The same crops are seen at the same share of the schedule; the rate follows the linear rule
    (Goyal et al., 2017), as in Detectron2's auto_scale_workers. What is not 0 stays 1 or more.
    SOLVER.STEPS is left where the schedule does not read it. EMA_DECAY is never scaled.

    Returns:
        `cfg` itself where there is nothing to scale, else a frozen copy whose REFERENCE_BATCH is
        its IMS_PER_BATCH.
    """
    scale = batch_scale(cfg)
    if scale == 1:
        return cfg
    scaled = cfg.clone()
    scaled.defrost()
    scaled.SOLVER.BASE_LR = cfg.SOLVER.BASE_LR * scale
    changed = [f"SOLVER.BASE_LR {cfg.SOLVER.BASE_LR:g} -> {scaled.SOLVER.BASE_LR:g}"]
    for name in _IN_ITERATIONS:
        if name == "SOLVER.STEPS" and schedule_name(cfg) != "WarmupMultiStepLR":
            continue
        section, key = name.split(".")
        old = cfg[section][key]
        new = (
            tuple(_divide(step, scale) for step in old)
            if isinstance(old, (tuple, list))
            else _divide(old, scale)
        )
        scaled[section][key] = new
        if new != old:
            changed.append(f"{name} {old} -> {new}")
    logger.info(
        "SOLVER.REFERENCE_BATCH is %d and SOLVER.IMS_PER_BATCH %d: %s",
        *(cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.IMS_PER_BATCH, ", ".join(changed)),
    )
    scaled.SOLVER.REFERENCE_BATCH = cfg.SOLVER.IMS_PER_BATCH  # or it would be scaled again
    scaled.freeze()
    return scaled


def _divide(iterations: int, scale: float) -> int:
    return max(1, round(iterations / scale)) if iterations > 0 else iterations


class WarmupPoly(ParamScheduler):
    """(1 - i/N)^power (w(i) + factor (1 - w(i))), with w rising linearly from 0 to 1.

    The warm-up multiplies the decaying rate; Detectron2's WarmupParamScheduler ramps to a fixed
    one.
    """

    def __init__(self, max_iter: int, *, power: float, warmup_iters: int, warmup_factor: float):
        """
        Args:
            max_iter: N.
            power: 1 = linear decay to 0.
            warmup_iters: iterations until w is 1.
            warmup_factor: multiplier at iteration 0.
        """
        self.max_iter = max_iter
        self.power = power
        self.warmup_iters = warmup_iters
        self.warmup_factor = warmup_factor

    def __call__(self, where: float) -> float:
        """The multiplier at `where` = i / N, in [0, 1]."""
        i = where * self.max_iter
        warm = min(1.0, i / self.warmup_iters) if self.warmup_iters else 1.0
        return max(0.0, 1 - where) ** self.power * (warm + self.warmup_factor * (1 - warm))


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """WarmupPolyLR, where schedule_name says so, or the one that Detectron2 knows by that name.

    Raises:
        InputError: SOLVER.SCHEDULE or SOLVER.LR_SCHEDULER_NAME is unknown.
    """
    cfg = complete_config(cfg)
    solver, name = cfg.SOLVER, schedule_name(cfg)
    if name != "WarmupPolyLR":
        if name != solver.LR_SCHEDULER_NAME:
            raise InputError(f"SOLVER.SCHEDULE is {name!r}; it takes 'WarmupPolyLR' or ''")
        try:
            return build_detectron2_lr_scheduler(cfg, optimizer)
        except ValueError as e:
            raise InputError(f"SOLVER.LR_SCHEDULER_NAME {name!r}: {e}") from e
    schedule = WarmupPoly(
        solver.MAX_ITER,
        power=solver.POLY_LR_POWER,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_factor=solver.WARMUP_FACTOR,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SOLVER.OPTIMIZER with HEAD_LR_FACTOR times the rate for all that is not the backbone.

    AdamW is PyTorch's fused one, which updates all weights of a group in one call. The fused SGD
    would fail at a weight that gets its first gradient after the first update.

    Raises:
        InputError: SOLVER.OPTIMIZER is unknown, or CLIP_TYPE where gradients are clipped.
    """
    cfg = complete_config(cfg)
    forget_recipe(model)
    solver, clipping = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    if clipping.ENABLED:
        clip_types = {kind.value: kind for kind in GradientClipType}
        look_up(clip_types, clipping.CLIP_TYPE, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE")
    groups = []
    for module, factor in _backbone_and_rest(model, solver.HEAD_LR_FACTOR):
        groups += get_default_optimizer_params(
            module,
            base_lr=solver.BASE_LR * factor,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
            # UncertaintyWeighting's, which decay would pull to equal weights.
            overrides={"log_variance": {"weight_decay": 0.0}},
        )
    common = {"params": reduce_param_groups(groups), "lr": solver.BASE_LR}
    if solver.OPTIMIZER == "ADAMW":
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(**common, fused=True)
    elif solver.OPTIMIZER == "SGD":
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
            **common, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV
        )
    else:
        raise InputError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; known: ADAMW, SGD")
    if clipping.ENABLED:
        # Detectron2 clips before the fused step. A GradScaler has to take its scale off before
        # that, and would otherwise leave it to the step.
        optimizer._step_supports_amp_scaling = False
    optimizer.register_load_state_dict_pre_hook(_keep_implementation)
    return optimizer


def _keep_implementation(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """The state of an optimizer of another implementation (fused or not), as one of this optimizer.

    Older checkpoints have such states, with the same values. PyTorch would take the implementation
    from them as well.
    """
    own = optimizer.param_groups
    groups = [
        {**group, "fused": mine["fused"], "foreach": mine["foreach"]}
        for group, mine in zip(state["param_groups"], own, strict=True)
    ]
    return {**state, "param_groups": groups}


def _backbone_and_rest(model: nn.Module, head_factor: float) -> list[tuple[nn.Module, float]]:
    backbone = getattr(model, "backbone", None)
    rest = [child for child in model.children() if child is not backbone]
    return [(backbone, 1.0)] * (backbone is not None) + [(child, head_factor) for child in rest]


def check_solver(cfg: CfgNode) -> None:
    """Raise InputError for mixed precision without a GPU, or a batch that has no equal parts."""
    solver = cfg.SOLVER
    if solver.AMP.ENABLED and not str(cfg.MODEL.DEVICE).startswith("cuda"):
        # Measured with bfloat16 autocast on a CPU that has AVX512-BF16 instructions.
        raise InputError(
            f"SOLVER.AMP.ENABLED needs a GPU; MODEL.DEVICE is {cfg.MODEL.DEVICE}, where a step in "
            "bfloat16 takes from 0.86 to 1.04 of float32's time: set it to False"
        )
    steps, processes = solver.ACCUMULATION_STEPS, comm.get_world_size()
    if solver.IMS_PER_BATCH % (steps * processes):
        raise InputError(
            f"SOLVER.ACCUMULATION_STEPS is {steps}, into which SOLVER.IMS_PER_BATCH "
            f"{solver.IMS_PER_BATCH} on {processes} processes cannot be split equally"
        )
