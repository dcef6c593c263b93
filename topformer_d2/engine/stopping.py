"""Stopping a training, with a checkpoint to go on from: by a signal or at a time limit."""

from __future__ import annotations

import signal
import threading
import time

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..checkpoint import SafeCheckpointer
from ..config.rules import seconds_of
from ..logs import get_logger

logger = get_logger(__name__)

# The exit status of coreutils' `timeout` where a time limit has ended a command.
TIMED_OUT = 124


class StopRequested(KeyboardInterrupt):
    """Raised when training stops before its end, after a checkpoint was saved.

    It is a KeyboardInterrupt and not an Exception. Detectron2's training loop catches exceptions,
    and would log this one as an error with a traceback.

    Attributes:
        signal: number of the signal that stopped it; None = the time limit, SOLVER.MAX_TIME.
        status: exit status for it, as a shell has it.
    """

    def __init__(self, message: str, number: int | None):
        super().__init__(message)
        self.signal = number
        self.status = TIMED_OUT if number is None else 128 + number


class StopOnSignal(HookBase):
    """On Ctrl-C or SIGTERM, or at a time limit, finish the iteration, save a checkpoint and stop.

    Ctrl-C twice, or SIGTERM after either, stops at once; but not Ctrl-C after SIGTERM, which is
    what a process gets when the one that started it has ended. Handlers can be set in the main
    thread only; elsewhere this does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    # Iterations between asking all processes, which costs a synchronisation.
    ASK_ALL_PERIOD = 20

    def __init__(self, checkpointer: SafeCheckpointer, max_time: str | None = None):
        """
        Args:
            checkpointer: of the training.
            max_time: SOLVER.MAX_TIME, counted from here on; None = no limit.
        """
        self._checkpointer = checkpointer
        self._max_time = max_time
        self._ends_at = time.monotonic() + seconds_of(max_time) if max_time else None
        self._received: int | None = None
        self._previous: dict = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in self.SIGNALS}

    def _handle(self, number: int, _frame: object) -> None:
        if self._received is not None and number in (self._received, signal.SIGTERM):
            self._restore()
            signal.raise_signal(number)
        elif self._received is None:
            self._received = number
            logger.warning("Stopping soon, with a checkpoint; once more stops at once")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if iteration + 1 >= self.trainer.max_iter:
            self._restore()  # what is left is the last evaluation, which a signal may end
            return
        reason = self._asked_by(iteration)
        if reason is None:
            return
        self.trainer._trainer.read_losses()  # those of the last iterations, which are logged, too
        if comm.is_main_process():
            self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        comm.synchronize()  # the first process to end takes the others with it
        if reason == TIMED_OUT:
            limit = f"at SOLVER.MAX_TIME {self._max_time}"
            raise StopRequested(f"stopped after iteration {iteration}, {limit}", None)
        raise StopRequested(f"stopped after iteration {iteration}", reason)

    def _asked_by(self, iteration: int) -> int | None:
        """The signal that any process got, or TIMED_OUT, the same for all; None to go on."""
        reason = self._received
        if reason is None and self._ends_at is not None and time.monotonic() >= self._ends_at:
            reason = TIMED_OUT
        if comm.get_world_size() == 1:
            return reason
        # All have to stop at the same iteration.
        if iteration % self.ASK_ALL_PERIOD:
            return None
        return next((n for n in comm.all_gather(reason) if n is not None), None)

    def after_train(self) -> None:
        self._restore()
