"""Recovery from an iteration that fails: the state before it is kept, with advice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..logs import get_logger
from .early_stopping import EndedEarly
from .failures import (
    UndoStep,
    as_lost_process,
    explain_failure,
    iteration_of,
    naming_folder,
    telling_of_threads,
)
from .launch import wrapping_for_device

logger = get_logger(__name__)


class RecoveringTrainer(DefaultTrainer):
    """A DefaultTrainer that keeps its state where an iteration fails.

    A subclass's build_hooks sets `checkpointer`, and has the hook of `build_undo` among its own.
    """

    def __init__(self, cfg: CfgNode):
        """As DefaultTrainer's; an OSError, as of a full disk, names the file or OUTPUT_DIR."""
        # TensorBoard's thread starts here, and may end at any time.
        with contextlib.ExitStack() as stack, naming_folder(cfg.OUTPUT_DIR):
            stack.enter_context(telling_of_threads())
            with wrapping_for_device(cfg.MODEL.DEVICE):
                super().__init__(cfg)
            self._until_trained = stack.pop_all()

    def build_undo(self) -> UndoStep:
        """The hook with which a failed iteration is undone; it comes before those that train."""
        self._undo = UndoStep(self.checkpointer.model, self.optimizer)
        self._has_failed = False
        return self._undo

    def train(self) -> Any:
        """As DefaultTrainer's; a resumed run of which all iterations are done gets its last file.

        That is model_final.pth, where the run was killed after it had saved the last iteration's
        checkpoint and before that.
        """
        is_done = self.iter + 1 == self.start_iter == self.max_iter
        final = os.path.join(self.cfg.OUTPUT_DIR, "model_final.pth")
        if is_done and comm.is_main_process() and not PathManager.exists(final):
            self.checkpointer.save("model_final", iteration=self.iter)
        with self._until_trained, naming_folder(self.cfg.OUTPUT_DIR):
            try:
                return super().train()
            except EndedEarly:  # where DefaultTrainer's has not come to what it does last
                if not self.cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
                    return None
                verify_results(self.cfg, self._last_eval_results)
                return self._last_eval_results

    def run_step(self) -> None:
        """One iteration; where it fails, what was trained until then is kept."""
        # TorchScript, in which Detectron2 has RetinaNet's loss, fuses operations from a function's
        # third call on: the first iterations of a resumed run would differ in their last bits.
        on_gpu = str(self.cfg.MODEL.DEVICE).startswith("cuda")
        try:
            with torch.jit.optimized_execution(on_gpu):
                super().run_step()
        except Exception as e:
            # After a loss that is not finite, nothing is worth keeping.
            is_past = iteration_of(e, self.iter) < self.iter
            keep = self._last_saved if is_past else self._keep_state
            self._end_where_lost(e, keep)
            message = self._explain(e)
            if message is None:
                raise
            raise InputError(f"{message}. {keep()}") from e

    def after_step(self) -> None:
        try:
            super().after_step()
        except Exception as e:
            self._end_where_lost(e, self._last_saved)
            message = self._explain(e)
            if message is None or isinstance(e, InputError):
                raise
            raise InputError(f"{message}. {self._last_saved()}") from e

    def after_train(self) -> None:
        if not self._has_failed:
            super().after_train()
            return
        self.storage.iter = self.iter
        for hook in self._hooks:  # each restores what is its own
            if isinstance(hook, EvalHook):  # it evaluates where the iteration is the last
                continue
            with contextlib.suppress(OSError, InputError):  # such as the disk that is full
                hook.after_train()

    def _end_where_lost(self, error: Exception, keep: Callable[[], str]) -> None:
        """End this process where another one of the run has; that one's error is told.

        Raises:
            LostProcessError: another one has ended; the state is kept.
        """
        lost = as_lost_process(error)
        if lost is None:
            return
        self._has_failed = True
        iteration = self.iter
        logger.warning(
            "Another process has ended or does not answer in iteration %d (%s). %s",
            *(iteration, lost, keep()),
        )
        raise lost from error

    def _explain(self, error: Exception) -> str | None:
        rate = self.optimizer.param_groups[0]["lr"]
        folder = self.cfg.OUTPUT_DIR
        message = explain_failure(error, iteration=self.iter, rate=rate, folder=folder)
        self._has_failed = message is not None
        return message and message.rstrip(". \n")

    def _keep_state(self) -> str:
        """Save the state after the last whole iteration; says where `resume` goes on."""
        if not comm.is_main_process():  # which keeps it where it can
            return "`resume` goes on from the last checkpoint"
        if self.iter == self.start_iter or not self._undo.undo():
            return self._last_saved()
        self.iter -= 1  # the last one that is done, which the checkpoint takes from here
        try:
            self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
        except (OSError, RuntimeError, MemoryError, FloatingPointError) as e:
            return f"Its state could not be saved ({e}). {self._last_saved()}"
        return f"Stopped after iteration {self.iter}; `resume` goes on from there"

    def _last_saved(self) -> str:
        try:
            last = self.checkpointer.get_checkpoint_file()
        except InputError:
            last = ""
        if not last:
            return "There is no checkpoint yet: start again"
        return f"`resume` goes on from {last}"
