"""Ending a training whose evaluations have not become better for a while (TEST.PATIENCE)."""

from __future__ import annotations

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..checkpoint import SafeCheckpointer
from ..logs import get_logger
from .hooks import KeepBest

logger = get_logger(__name__)


class EndedEarly(BaseException):
    """Raised in Detectron2's loop to end it as after its last iteration; the trainer catches it.

    Detectron2 would log an Exception as an error with a traceback.
    """


class StopEarly(HookBase):
    """Ends a training after some evaluations without a new best, as if it had had no more to do.

    The last iteration's model is saved as model_final.pth, and what comes after a training comes
    now. It needs no state of its own: how many evaluations came since the best one follows from the
    iteration in model_best.pth, which KeepBest keeps over a resume. It comes after KeepBest and
    the hook that saves checkpoints, so that a checkpoint is never ahead of what is known of the
    best. In a resumed run that was already due, nothing is trained.
    """

    def __init__(
        self, best: KeepBest | None, checkpointer: SafeCheckpointer, *, patience: int, period: int
    ):
        """
        Args:
            best: the main process's hook; None = another process.
            checkpointer: of the training.
            patience: evaluations without a new best after which training ends.
            period: iterations between evaluations.
        """
        self._best = best
        self._checkpointer = checkpointer
        self._patience = patience
        self._period = period

    def before_train(self) -> None:
        if 0 < self.trainer.start_iter < self.trainer.max_iter:
            self._end_if_due(self.trainer.start_iter)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done < self.trainer.max_iter:
            self._end_if_due(done)

    def _end_if_due(self, done: int) -> None:
        """`done`: iterations that are trained."""
        best = comm.all_gather(self._best.best_iteration if self._best else None)[0]
        if best is None or done // self._period - (best + 1) // self._period < self._patience:
            return
        if self._best is not None:
            logger.warning(
                "Training ends early, after iteration %d of %d: the last %d evaluations "
                "(TEST.PATIENCE) were no better than that of iteration %d, whose weights are in %s",
                *(done - 1, self.trainer.max_iter, self._patience, best, self._best.file),
            )
            self.trainer.iter = done - 1  # which the checkpoint takes from here
            self._checkpointer.save("model_final", iteration=done - 1)
        self.trainer.iter = self.trainer.max_iter = done
        raise EndedEarly
