"""Hooks that make a training run exactly resumable, interruptible and readable."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..checkpoint import SafeCheckpointer, read_state_dict, save_state_dict
from ..logs import get_logger

logger = get_logger(__name__)


class SeedEachStep(HookBase):
    """Makes dropout and drop path a function of (seed, iteration, process).

    With TrainLoader, whose batches depend on the seed and the position alone, no random state has
    to be stored for a resumed run to go on exactly as the uninterrupted one would have.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self) -> None:
        # Odd multipliers keep (seed, iteration, rank) apart; PyTorch mixes the bits.
        mixed = self.seed * 0x9E3779B1 + self.trainer.iter * 0x85EBCA77 + comm.get_rank()
        torch.manual_seed(mixed % 2**63)

    def state_dict(self) -> dict:
        return {"seed": self.seed}

    def load_state_dict(self, state: dict) -> None:
        seed = state["seed"]
        if type(seed) is not int or seed < 0:
            raise ValueError(f"its seed is {seed!r}")
        self.seed = seed


class KeepLossNormalizer(HookBase):
    """Carries RetinaNet's running mean of foreground anchors over a resume.

    It divides the losses, and is neither a parameter nor a buffer of the model. Of several
    processes, whose means differ a little, all go on with the first one's.
    """

    def __init__(self, checkpointer: SafeCheckpointer):
        self._model = checkpointer.model  # what DistributedDataParallel wraps

    def state_dict(self) -> dict:
        return {"loss_normalizer": getattr(self._model, "loss_normalizer", None)}

    def load_state_dict(self, state: dict) -> None:
        value = state["loss_normalizer"]
        if value is None:
            return
        if not 0 < float(value) < math.inf:
            raise ValueError(f"its loss_normalizer is {value!r}")
        self._model.loss_normalizer = value


class KeepBest(HookBase):
    """Keeps the model with the highest mean of some metrics as model_best.pth.

    It comes after EvalHook and looks at what that found. The file holds the weights, and beside
    them the iteration, the metrics and their mean, with which a resumed run goes on. Detectron2's
    BestCheckpointer takes one metric, and a resumed run overwrites its file with whatever comes
    first.

    Attributes:
        best_iteration: of the evaluation that was the best so far; None = none yet.
        file: path of model_best.pth.
    """

    def __init__(self, checkpointer: SafeCheckpointer, metrics: Sequence[str]):
        """
        Args:
            checkpointer: SafeCheckpointer; its saved_model's weights go into its save_dir.
            metrics: names such as "sem_seg/mIoU"; more is better. With several test datasets, the
                mean over those that have it.
        """
        self._model = checkpointer.saved_model
        self._metrics = tuple(metrics)
        self.file = os.path.join(checkpointer.save_dir, "model_best.pth")
        self._best = -math.inf
        self.best_iteration: int | None = None

    def before_train(self) -> None:
        self._best, self.best_iteration = -math.inf, None
        if self.trainer.start_iter > 0 and PathManager.isfile(self.file):
            kept = read_state_dict(self.file)
            metrics, mean = kept.get("metrics"), kept.get("mean")
            if isinstance(metrics, Mapping) and [*metrics] == [*self._metrics]:
                self._best = mean if isinstance(mean, float) else -math.inf
                iteration = kept.get("iteration")
                self.best_iteration = iteration if isinstance(iteration, int) else None

    def after_step(self) -> None:
        self._keep_if_better()

    def after_train(self) -> None:
        self._keep_if_better()

    def _keep_if_better(self) -> None:
        iteration = self.trainer.iter
        now = {
            name: value
            for name, (value, at) in self.trainer.storage.latest().items()
            if at == iteration and "/" in name
        }
        if not now:
            return  # no evaluation
        metrics = {}
        for metric in self._metrics:
            # With several datasets, "<dataset>/" stands before each one's.
            values = [v for name, v in now.items() if f"/{name}".endswith(f"/{metric}")]
            metrics[metric] = sum(values) / len(values) if values else math.nan
        mean = sum(metrics.values()) / len(metrics)
        if math.isnan(mean):
            logger.warning(
                "model_best.pth: no mean of TEST.BEST_METRICS, which are %s; known: %s",
                *(metrics, sorted(now)),
            )
        elif mean > self._best:
            self._best = mean
            iteration = min(iteration, self.trainer.max_iter - 1)  # one more after the last
            self.best_iteration = iteration
            state = {"iteration": iteration, "metrics": metrics, "mean": mean}
            save_state_dict(self._model.state_dict(), self.file, **state)
            logger.info("model_best.pth: mean %.2f of %s at iteration %d", mean, metrics, iteration)


class ProgressBar(HookBase):
    """On a terminal, a bar with rate, ETA and the losses; log lines go above it."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._redirect: Any = None

    @staticmethod
    def wanted() -> bool:
        """Whether there is a terminal to draw on, and nothing is piped away from it."""
        return sys.stdout.isatty() and sys.stderr.isatty() and comm.is_main_process()

    def before_train(self) -> None:
        loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "topformer_d2")]
        self._redirect = logging_redirect_tqdm(loggers)
        self._redirect.__enter__()
        for handler in loggers[0].handlers:
            # Detectron2's lines of losses would repeat the bar; its log file keeps them.
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.addFilter(lambda record: record.name != "detectron2.utils.events")
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            unit="it",
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def after_step(self) -> None:
        losses = {
            name.removeprefix("loss_"): f"{values.median(20):.3f}"
            for name, values in self.trainer.storage.histories().items()
            if "loss" in name
        }
        self._bar.set_postfix(losses, refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._redirect.__exit__(None, None, None)
