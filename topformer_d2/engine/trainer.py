"""Detectron2's DefaultTrainer with the toolkit's data, solver, evaluators and exact resume."""

from __future__ import annotations

import logging
import os
import weakref

from detectron2.engine import DefaultTrainer
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter

from ..checkpoint import SafeCheckpointer
from ..data import build_test_loader, build_train_loader
from ..errors import InputError
from ..evaluation import build_evaluator
from .hooks import ProgressBar, SeedEachStep, StopOnSignal
from .solver import build_lr_scheduler, build_optimizer


class _WithoutInputErrors(logging.Filter):
    """Keeps Detectron2's loop from logging the traceback of an error that the user can mend."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], InputError))


logging.getLogger("detectron2.engine.train_loop").addFilter(_WithoutInputErrors())


class Trainer(DefaultTrainer):
    """Trains what a config describes; a resumed run gives the losses of an uninterrupted one.

    Everything random follows from one seed: SEED, or with SEED = -1 one drawn at the start and kept
    in the checkpoints.
    """

    def __init__(self, cfg):
        if cfg.SOLVER.AMP.ENABLED and not str(cfg.MODEL.DEVICE).startswith("cuda"):
            raise InputError(f"SOLVER.AMP.ENABLED needs a GPU; MODEL.DEVICE is {cfg.MODEL.DEVICE}")
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        seed_all_rng(self.seed)  # the initial weights
        super().__init__(cfg)
        self.data_loader.seed = self.seed

    def build_hooks(self) -> list:
        """DefaultTrainer's, then progress, and stopping once the others are done."""
        # DefaultTrainer has just made its own checkpointer, which the hooks take.
        self.checkpointer = SafeCheckpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        ret = [SeedEachStep(self.seed), *super().build_hooks()]
        if ProgressBar.wanted():
            ret.append(ProgressBar())
        return [*ret, StopOnSignal(self.checkpointer)]

    def build_writers(self) -> list:
        """DefaultTrainer's, without lines of losses where a progress bar shows them."""
        writers = super().build_writers()
        if ProgressBar.wanted():
            writers = [w for w in writers if not isinstance(w, CommonMetricPrinter)]
        return writers

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint of OUTPUT_DIR whole, or MODEL.WEIGHTS's weights alone.

        Raises:
            InputError: the weights cannot be read, or do not fit the model.
        """
        super().resume_or_load(resume=resume)
        seeds = [h.seed for h in self._hooks if isinstance(h, SeedEachStep)]
        self.data_loader.seed = seeds[0]
        self.data_loader.start_iter = self.start_iter

    def state_dict(self) -> dict:
        state = super().state_dict()
        # Detectron2's main branch has it; v0.6 loses the optimizer's state.
        state["_trainer"] = self._trainer.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_optimizer(cls, cfg, model):
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg, seed=max(cfg.SEED, 0))

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        return build_evaluator(cfg, dataset_name, folder)
