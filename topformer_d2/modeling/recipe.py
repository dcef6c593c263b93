"""A warning where another program's trainer ignores parts of a config's recipe."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import nn

from ..config import SCHEDULE_FALLBACK, complete_config, schedule_name
from ..logs import get_logger

logger = get_logger(__name__)


class _Reminder:
    """A hook before a module's forward; in the first training step it warns and is gone."""

    def __init__(self, what: str):
        self.what = what

    def __call__(self, module: nn.Module, _: object) -> None:
        if module.training:
            forget_recipe(module)
            logger.warning(
                "The optimizer is not the one of topformer_d2.engine. Of the config's recipe, "
                "Detectron2's own trainer leaves out: %s. Build both by topformer_d2.engine's "
                "build_optimizer and build_lr_scheduler, or use its Trainer, to have them",
                self.what,
            )


def remember_recipe(backbone: nn.Module, cfg: CfgNode) -> nn.Module:
    """Make a backbone warn, when it is trained, of config keys that Detectron2's trainer ignores.

    Args:
        backbone: as built; it is changed and returned.
        cfg: of the whole model; a key that it lacks was not asked for.
    """
    if what := _unknown_to_detectron2(cfg):
        backbone.register_forward_pre_hook(_Reminder("; ".join(what)))
    return backbone


def forget_recipe(model: nn.Module) -> None:
    """No warning any more: the optimizer is what the config says."""
    for module in model.modules():
        hooks = module._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, _Reminder)]:
            del hooks[key]


def _unknown_to_detectron2(cfg: CfgNode) -> list[str]:
    solver, what = cfg.SOLVER, []
    if (optimizer := solver.get("OPTIMIZER", "SGD")) != "SGD":
        what.append(f"SOLVER.OPTIMIZER {optimizer} (it takes SGD)")
    if (schedule := schedule_name(complete_config(cfg))) != solver.LR_SCHEDULER_NAME:
        what.append(f"SOLVER.SCHEDULE {schedule} (it takes {SCHEDULE_FALLBACK})")
    for key, off in (
        ("HEAD_LR_FACTOR", 1.0),
        ("EPOCHS", 0),
        ("ACCUMULATION_STEPS", 1),
        ("EMA_DECAY", 0.0),
    ):
        if (value := solver.get(key, off)) != off:
            what.append(f"SOLVER.{key} {value:g}")
    if frozen := cfg.MODEL.get("FREEZE"):
        what.append(f"MODEL.FREEZE {list(frozen)}")
    return what
