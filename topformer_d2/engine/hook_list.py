"""The hooks of a training, in the order in which they run."""

from __future__ import annotations

from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine import hooks as detectron2_hooks
from detectron2.utils import comm

from ..config import model_tasks
from .charts import DrawCurves
from .early_stopping import StopEarly
from .ema import AverageWeights
from .hooks import KeepBest, KeepLossNormalizer, ProgressBar, SeedEachStep
from .loggers import WriteEvents
from .precise_bn import build_precise_bn
from .stopping import StopOnSignal


def build_hooks(cfg: CfgNode, trainer: Any) -> list[HookBase]:
    """DefaultTrainer's hooks and ours.

    Args:
        cfg: the trainer's.
        trainer: a Trainer whose model, loader and checkpointer are built. Where weights are
            averaged, its checkpointer's saved_model becomes the average.
    """
    is_main, checkpointer = comm.is_main_process(), trainer.checkpointer
    hooks: list[HookBase] = [SeedEachStep(cfg.SEED), trainer.build_undo()]
    if "instances" in model_tasks(cfg):
        hooks.append(KeepLossNormalizer(checkpointer))
    hooks += [detectron2_hooks.IterationTimer(), detectron2_hooks.LRScheduler()]
    # What changes the weights that are saved and evaluated comes before what does so.
    if cfg.SOLVER.EMA_DECAY:
        averaging = AverageWeights(checkpointer.model, cfg.SOLVER.EMA_DECAY)
        checkpointer.saved_model = averaging.averaged
        hooks.append(averaging)
    model = checkpointer.saved_model
    if cfg.TEST.PRECISE_BN.ENABLED:
        hooks.append(build_precise_bn(cfg, model, trainer.data_loader))
    period, patience = cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.PATIENCE
    saving = [detectron2_hooks.PeriodicCheckpointer(checkpointer, period)] if is_main else []
    # Before an evaluation, which may fail, unless what it finds decides how training goes on.
    hooks += [] if patience else saving
    hooks.append(detectron2_hooks.EvalHook(cfg.TEST.EVAL_PERIOD, partial(trainer.evaluate, model)))
    if cfg.TEST.AUG.ENABLED:
        with_tta = partial(trainer.test_with_tta, cfg, model)
        hooks.append(detectron2_hooks.EvalHook(0, with_tta))
    if is_main:
        hooks.append(WriteEvents(trainer.build_writers(), period=20))
        hooks.append(DrawCurves(cfg.OUTPUT_DIR))
    best = None
    if is_main and cfg.TEST.BEST_METRICS:
        best = KeepBest(checkpointer, cfg.TEST.BEST_METRICS)
        hooks.append(best)
    if patience:
        period = cfg.TEST.EVAL_PERIOD
        hooks += [*saving, StopEarly(best, checkpointer, patience=patience, period=period)]
    if ProgressBar.wanted():
        hooks.append(ProgressBar())
    return [*hooks, StopOnSignal(checkpointer, cfg.SOLVER.MAX_TIME)]
