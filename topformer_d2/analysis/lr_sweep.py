"""The learning-rate range test: a short training whose rate rises, and what its losses suggest.

After Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017), Section 3.3. He
raises the rate linearly over epochs and looks at the accuracy. Here it rises exponentially over
some hundred iterations, and the training loss is looked at, which takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from matplotlib.figure import Figure
from tabulate import tabulate

from ..checkpoint import SafeCheckpointer
from ..data import build_train_loader
from ..engine import Trainer, build_optimizer, scale_to_batch
from ..engine.class_weights import with_class_weights
from ..engine.solver import check_solver
from ..engine.train_loop import AccumulatingTrainer
from ..errors import InputError
from .chart import COLORS, render

# A loss that is so many times the largest of the first ones will not come down again.
_DIVERGED, _FIRST = 3.0, 5
_ROWS = 20


@dataclass
class Sweep:
    """What a sweep found.

    Attributes:
        rates: SOLVER.BASE_LR of each iteration, rising.
        losses: the total loss of each iteration, before its update.
        smoothed: the mean of each loss and its neighbours, a tenth of the sweep wide.
        lowest: the rate at the smoothed loss's minimum; a training's must be below it.
        suggested: the rate at which the smoothed loss falls fastest below that; None = it falls
            nowhere.
        ended_early: the loss left the range before the last rate.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    lowest: float
    suggested: float | None
    ended_early: bool


def build_sweep(cfg: CfgNode) -> tuple[AccumulatingTrainer, CfgNode]:
    """The training step of a config, from MODEL.WEIGHTS; nothing is written.

    Args:
        cfg: complete.

    Returns:
        the step, and the config with the rate for its batch (SOLVER.REFERENCE_BATCH).

    Raises:
        InputError: as Trainer's.
    """
    cfg = scale_to_batch(with_class_weights(cfg))
    check_solver(cfg)
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    model = Trainer.build_model(cfg)
    SafeCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    scaler = torch.amp.GradScaler("cuda") if cfg.SOLVER.AMP.ENABLED else None
    step = AccumulatingTrainer(
        *(model, build_train_loader(cfg), build_optimizer(cfg, model)),
        num_parts=cfg.SOLVER.ACCUMULATION_STEPS,
        grad_scaler=scaler,
    )
    step.read_period = 1  # the next rate depends on this one's loss
    return step, cfg


def sweep_rates(
    step: AccumulatingTrainer,
    base_lr: float,
    *,
    low: float,
    high: float,
    iterations: int = 100,
    tell: Callable[[int], object] = lambda done: None,
) -> Sweep:
    """Train some iterations with rates that rise exponentially, and look at the losses.

    It ends where the loss is not finite, or three times the first ones.

    Args:
        step: its model is changed.
        base_lr: SOLVER.BASE_LR of the optimizer; groups keep their ratio to it.
        low, high: the first rate and the last one, as values of SOLVER.BASE_LR.
        iterations: 20 or more.
        tell: called after each iteration with the number of those that are done.

    Raises:
        InputError: the rates or `iterations` are out of their range, or the first losses are not
            finite.
    """
    if not 0 < low < high < math.inf:
        raise InputError(f"`low` is {low:g} and `high` {high:g}; both are above 0, the lower first")
    if iterations < 20:
        raise InputError(f"`iterations` is {iterations}; it takes 20 or more")
    if not base_lr > 0:
        raise InputError(f"SOLVER.BASE_LR is {base_lr:g}; a sweep takes one above 0")
    factors = [group["lr"] / base_lr for group in step.optimizer.param_groups]
    rates = np.geomspace(low, high, iterations).tolist()
    losses: list[float] = []
    with EventStorage() as storage:
        for i, rate in enumerate(rates):
            storage.iter = step.iter = i
            for group, factor in zip(step.optimizer.param_groups, factors, strict=True):
                group["lr"] = rate * factor
            try:
                step.run_step()
            except FloatingPointError:
                break
            losses.append(float(storage.history("total_loss").latest()))
            tell(i + 1)
            if losses[-1] > _DIVERGED * max(losses[:_FIRST]):
                break
    if len(losses) < 3:
        raise InputError(
            f"the loss is not finite at the rate {rates[len(losses)]:.3g}: try a lower `low`"
        )
    return _look_at(rates[: len(losses)], losses, iterations)


def _look_at(rates: list[float], losses: list[float], iterations: int) -> Sweep:
    reach = max(1, iterations // 20)
    smoothed = [
        float(np.mean(losses[max(0, i - reach) : i + reach + 1])) for i in range(len(losses))
    ]
    lowest = int(np.argmin(smoothed))
    # Of equal steps on a logarithmic axis. The means of the first few are of fewer losses.
    slopes = np.gradient(np.array(smoothed[: lowest + 1])) if lowest else np.zeros(1)
    steepest = int(np.argmin(slopes[reach:])) + reach if lowest > reach else int(np.argmin(slopes))
    falls = bool(slopes[steepest] < 0)
    return Sweep(
        *(rates, losses, smoothed, rates[lowest]),
        suggested=rates[steepest] if falls else None,
        ended_early=len(losses) < iterations,
    )


def format_sweep(sweep: Sweep, batch_scale: float = 1.0) -> str:
    """A table of up to 20 of the rates, and what they suggest.

    Args:
        sweep: of sweep_rates.
        batch_scale: of engine.solver, by which a training multiplies the config's BASE_LR.
    """
    count = len(sweep.rates)
    rows = sorted({round(i) for i in np.linspace(0, count - 1, min(_ROWS, count))})
    table = tabulate(
        [(f"{sweep.rates[i]:.2e}", sweep.losses[i], sweep.smoothed[i]) for i in rows],
        headers=["rate", "loss", "smoothed"],
        floatfmt=".4f",
        disable_numparse=[0],
    )
    lines = [table, ""]
    if sweep.ended_early:
        lines.append(f"The loss leaves the range after the rate {sweep.rates[-1]:.2e}.")
    if sweep.suggested is None:
        return "\n".join([*lines, "The loss falls at none of these rates: try lower ones."])
    lines.append(f"The loss falls fastest at {sweep.suggested:.2e}, up to {sweep.lowest:.2e}.")
    if sweep.lowest == sweep.rates[-1]:
        lines.append("It still falls at the last rate: a larger `high` may tell more.")
    lines.append(f"Suggested: SOLVER.BASE_LR {sweep.suggested / batch_scale:.2g}")
    return "\n".join(lines)


def draw_sweep(sweep: Sweep, title: str) -> np.ndarray:
    """Loss over rate: (H, W, 3) uint8 RGB."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(sweep.rates, sweep.losses, color=COLORS[0], alpha=0.3, label="loss")
    axes.semilogx(sweep.rates, sweep.smoothed, color=COLORS[0], label="smoothed")
    if sweep.suggested is not None:
        label = f"falls fastest, {sweep.suggested:.2e}"
        axes.axvline(sweep.suggested, color=COLORS[2], label=label)
        axes.axvline(
            sweep.lowest, color=COLORS[3], linestyle="--", label=f"lowest, {sweep.lowest:.2e}"
        )
    # A loss that leaves the range would flatten the rest.
    low, top = min(sweep.losses), max(sweep.smoothed[0], min(sweep.losses) + 1e-9)
    axes.set_ylim(low - 0.1 * (top - low), top + 0.5 * (top - low))
    axes.set_xlabel("learning rate (SOLVER.BASE_LR)")
    axes.set_ylabel("loss")
    axes.set_title(title)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return render(figure)
