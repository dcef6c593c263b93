"""Detectron2's DefaultTrainer with the toolkit's data, solver, evaluators and exact resume."""

from __future__ import annotations

import logging
import os
import weakref

import torch
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..checkpoint import SafeCheckpointer
from ..config import model_tasks
from ..data import build_test_loader, build_train_loader
from ..errors import InputError
from ..evaluation import build_evaluator, evaluator_type
from .charts import DrawCurves, draw_evaluation_charts
from .hooks import KeepBest, KeepLossNormalizer, ProgressBar, SeedEachStep, StopOnSignal
from .solver import build_lr_scheduler, build_optimizer

logger = logging.getLogger(__name__)


class _WithoutInputErrors(logging.Filter):
    """Keeps Detectron2's loop from logging the traceback of an error that the user can mend."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], InputError))


logging.getLogger("detectron2.engine.train_loop").addFilter(_WithoutInputErrors())


class Trainer(DefaultTrainer):
    """Trains what a config describes; a resumed run goes on as if it had never been stopped.

    Everything random follows from one seed: SEED, or with SEED = -1 one drawn at the start and kept
    in the checkpoints. On a CPU a resumed run's losses are equal to the bit; on a GPU as far as
    PyTorch's kernels are deterministic.
    """

    def __init__(self, cfg):
        """
        Args:
            cfg: a Detectron2 config with the toolkit's keys.

        Raises:
            InputError: mixed precision without a GPU, no iterations, or a test dataset without an
                evaluator.
        """
        if cfg.SOLVER.MAX_ITER < 1:
            raise InputError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; it takes 1 or more")
        if cfg.SOLVER.AMP.ENABLED and not str(cfg.MODEL.DEVICE).startswith("cuda"):
            raise InputError(f"SOLVER.AMP.ENABLED needs a GPU; MODEL.DEVICE is {cfg.MODEL.DEVICE}")
        for name in cfg.DATASETS.TEST:
            evaluator_type(name)
        if cfg.SEED < 0:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SEED = comm.shared_random_seed()
            cfg.freeze()
        seed_all_rng(cfg.SEED)  # the initial weights
        super().__init__(cfg)

    def build_hooks(self) -> list:
        """DefaultTrainer's, then progress, and stopping once the others are done."""
        # DefaultTrainer calls this when all else is built; the hooks take its checkpointer.
        self.checkpointer = SafeCheckpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self._seed_hook = SeedEachStep(self.cfg.SEED)
        hooks = [self._seed_hook]
        if "instances" in model_tasks(self.cfg):
            hooks.append(KeepLossNormalizer(self.checkpointer))
        hooks += super().build_hooks()
        if self.cfg.TEST.BEST_METRICS and comm.is_main_process():
            hooks.append(KeepBest(self.checkpointer, self.cfg.TEST.BEST_METRICS))
        if comm.is_main_process():
            hooks.append(DrawCurves(self.cfg.OUTPUT_DIR))
        if ProgressBar.wanted():
            hooks.append(ProgressBar())
        return [*hooks, StopOnSignal(self.checkpointer)]

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint of OUTPUT_DIR whole, or MODEL.WEIGHTS's weights alone.

        Raises:
            InputError: the weights cannot be read or do not fit the model, or the checkpoint is
                another optimizer's.
        """
        # A run goes on with all of its weights; only a new one may start from a part.
        self.checkpointer.require_all = resume and self.checkpointer.has_checkpoint()
        super().resume_or_load(resume=resume)
        self.data_loader.seed = self._seed_hook.seed  # the checkpoint's, where there was one
        self.data_loader.start_iter = self.start_iter

    def run_step(self) -> None:
        """One iteration; where a file cannot be used, what was trained until then is kept."""
        # TorchScript, in which Detectron2 has RetinaNet's loss, fuses operations from a function's
        # third call on: the first iterations of a resumed run would differ in their last bits.
        on_gpu = str(self.cfg.MODEL.DEVICE).startswith("cuda")
        try:
            with torch.jit.optimized_execution(on_gpu):
                super().run_step()
        except InputError:
            # Raised when the batch is loaded, before anything has changed.
            if self.iter > self.start_iter and comm.is_main_process():
                self.iter -= 1  # the last one that is done, which the checkpoint takes from here
                self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
                logger.info("stopped after iteration %d; --resume goes on from there", self.iter)
            raise

    def state_dict(self) -> dict:
        state = super().state_dict()
        # Detectron2's main branch has it; v0.6 loses the optimizer's state.
        state["_trainer"] = self._trainer.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        saved = state_dict["_trainer"]["optimizer"]["param_groups"]
        own = self.optimizer.state_dict()["param_groups"]
        if [(g.keys(), len(g["params"])) for g in saved] != [
            (g.keys(), len(g["params"])) for g in own
        ]:
            raise InputError(
                f"{self.cfg.OUTPUT_DIR} was trained with another SOLVER.OPTIMIZER, other rates and "
                "decays by group or another MODEL.MULTITASK.UNCERTAINTY_WEIGHTING: resume with its "
                "config, or start anew in another OUTPUT_DIR"
            )
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
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return build_evaluator(cfg, dataset_name, _inference_folder(cfg, dataset_name))

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """As DefaultTrainer's; then each dataset's folder gets charts of its segmentation."""
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process():
            for name in cfg.DATASETS.TEST:
                draw_evaluation_charts(_inference_folder(cfg, name))
        return results


def _inference_folder(cfg, dataset_name: str) -> str:
    return os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
