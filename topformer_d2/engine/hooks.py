"""Hooks that make a training run exactly resumable, interruptible and readable."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger(__name__)


class SeedEachStep(HookBase):
    """Makes dropout and drop path a function of (seed, iteration, process).

    With TrainLoader, whose batches depend on the seed and the position alone, no random state has
    to be stored for a resumed run to go on exactly as the uninterrupted one would have.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self) -> None:
        # Odd multipliers keep (seed, iteration, rank) apart; PyTorch mixes the bits.
        torch.manual_seed(
            self.seed * 0x9E3779B1 + self.trainer.iter * 0x85EBCA77 + comm.get_rank() & (2**63 - 1)
        )

    def state_dict(self) -> dict:
        return {"seed": self.seed}

    def load_state_dict(self, state: dict) -> None:
        self.seed = state["seed"]


class StopRequested(KeyboardInterrupt):
    """Training was asked to stop and has saved its state.

    No Exception, which Detectron2's loop would log as an error with its traceback.
    """


class StopOnSignal(HookBase):
    """On Ctrl-C or SIGTERM, finish the iteration, save a checkpoint and stop.

    A second signal stops at once. Handlers can be set in the main thread only; elsewhere this does
    nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, checkpointer):
        self._checkpointer = checkpointer
        self._received: int | None = None
        self._previous: dict = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in self.SIGNALS}

    def _handle(self, number: int, _frame) -> None:
        self._restore()
        self._received = number
        logger.warning("Stopping after this iteration; once more to stop at once")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def after_step(self) -> None:
        # Any process may have got the signal; all have to stop at the same iteration.
        received = any(comm.all_gather(self._received)) if self._any_process() else self._received
        if not received:
            return
        iteration = self.trainer.iter
        if comm.is_main_process():
            self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        raise StopRequested(f"stopped after iteration {iteration}")

    @staticmethod
    def _any_process() -> bool:
        return comm.get_world_size() > 1

    def after_train(self) -> None:
        self._restore()


class ProgressBar(HookBase):
    """On a terminal, a bar with rate, ETA and the losses; log lines go above it."""

    def __init__(self):
        self._bar: tqdm | None = None
        self._redirect = None

    @staticmethod
    def wanted() -> bool:
        """Whether there is a terminal to draw on."""
        return sys.stderr.isatty() and comm.is_main_process()

    def before_train(self) -> None:
        loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "topformer_d2")]
        self._redirect = logging_redirect_tqdm(loggers)
        self._redirect.__enter__()
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            unit="it",
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def after_step(self) -> None:
        history = self.trainer.storage.histories()
        losses = {
            name.removeprefix("loss_"): f"{values.median(20):.3f}"
            for name, values in history.items()
            if "loss" in name and math.isfinite(values.latest())
        }
        self._bar.set_postfix(losses, refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._redirect.__exit__(None, None, None)
