"""Failures of a training: the message to the user, and undoing the failed iteration."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed, nn

from ..errors import InputError, cut, is_disk_full, is_out_of_memory, message_of
from ..logs import get_logger

logger = get_logger(__name__)

_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\)")
# In what gloo raises where another process has ended, which has no class of its own.
_LOST = re.compile(r"gloo/|Connection (closed|reset) by peer|[Tt]imed out waiting")
# Exit status of a process of a run that ends because another one has: EX_TEMPFAIL.
LOST_CONNECTION = 75
_ITERATION = re.compile(r"at iteration=(\d+)")
_NOT_FINITE = re.compile(r"'(\w+)': (?:np\.float\d+\()?(-?inf|nan)")


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer; the message tells how it showed."""


class _WithoutInputErrors(logging.Filter):
    """Keeps Detectron2's loop from logging the traceback of an error that the user can fix."""

    def filter(self, record: logging.LogRecord) -> bool:
        # The last is a loss that is not finite: Detectron2's main branch logs it where it raises.
        told = (InputError, OSError, FloatingPointError, LostProcessError)
        return not (record.exc_info and isinstance(record.exc_info[1], told))


logging.getLogger("detectron2.engine.train_loop").addFilter(_WithoutInputErrors())


class UndoStep(HookBase):
    """Can bring the model back to how it was before an iteration that failed.

    The forward pass changes BatchNorm's statistics, and the optimizer's step the weights. The
    statistics are few and are copied before each iteration. Once the weights change there is no
    way back.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        self._model = model
        self._buffers = list(model.buffers())
        self._copies: list[torch.Tensor] = []
        self._normalizer = None
        self._is_updating = False
        optimizer.register_step_pre_hook(self._mark)

    def _mark(self, *_: object) -> None:
        self._is_updating = True

    def before_step(self) -> None:
        self._is_updating = False
        if not self._copies:
            self._copies = [buffer.clone() for buffer in self._buffers]
        elif self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)
        self._normalizer = getattr(self._model, "loss_normalizer", None)  # RetinaNet's

    def undo(self) -> bool:
        """Restore what the failed iteration changed; False where that cannot be done.

        It cannot where the optimizer had begun, or where the model from before is not finite.
        """
        if self._is_updating or not self._copies:
            return False
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)
        if self._normalizer is not None:
            self._model.loss_normalizer = self._normalizer
        return is_finite(self._model)


def is_finite(model: nn.Module) -> bool:
    """Whether all parameters are finite, and no buffer, as BatchNorm's statistics, has NaN.

    A buffer may be infinite, as masks of attention are.
    """
    parameters, buffers = model.parameters(), model.buffers()
    return all(bool(p.isfinite().all()) for p in parameters) and not any(
        bool(b.isnan().any()) for b in buffers
    )


def iteration_of(error: Exception, current: int) -> int:
    """The iteration of a loss that is not finite, which may be read in a later one.

    It is `current` for another error.
    """
    found = isinstance(error, FloatingPointError) and _ITERATION.search(str(error))
    return int(found[1]) if found else current


def explain_failure(error: Exception, *, iteration: int, rate: float, folder: str) -> str | None:
    """What happened and what to try, in one line; None where it is a mistake of the program.

    Args:
        error: raised in an iteration.
        iteration: in which.
        rate: the first parameter group's learning rate.
        folder: OUTPUT_DIR.
    """
    text = str(error)
    if isinstance(error, InputError):
        return message_of(error)
    if isinstance(error, OSError) and is_disk_full(error):
        return f"{error.filename or folder}: {error.strerror}. Free space on that disk"
    if isinstance(error, FloatingPointError):
        losses = ", ".join(f"{name} {value}" for name, value in _NOT_FINITE.findall(text))
        iteration = iteration_of(error, iteration)
        return (
            f"the loss is not finite in iteration {iteration} ({losses or text.splitlines()[0]}), "
            f"with learning rate {rate:.3g}. Try SOLVER.CLIP_GRADIENTS.ENABLED True, or start anew "
            "with a lower SOLVER.BASE_LR or a longer SOLVER.WARMUP_ITERS"
        )
    if is_out_of_memory(error):
        return (
            f"out of memory in iteration {iteration}: {text.splitlines()[0] if text else 'Python'}."
            " Try a higher SOLVER.ACCUMULATION_STEPS, a smaller SOLVER.IMS_PER_BATCH or "
            "INPUT.CROP.SIZE, or fewer DATALOADER.NUM_WORKERS"
        )
    if worker := _WORKER.search(text):
        killed = re.search(r"killed by signal: ([^.]+)", text)
        how = f"was killed by {killed[1].strip()}" if killed else "ended unexpectedly"
        return (
            f"a process that loads images (pid {worker[1]}) {how} in iteration {iteration}. Where "
            "the system ran out of memory, try fewer DATALOADER.NUM_WORKERS"
        )
    return None


def as_lost_process(error: Exception) -> LostProcessError | None:
    """The error to raise where another process of the run has ended, or does not answer.

    What NCCL and gloo raise then, they may also raise for a reason of their own, such as a network
    interface that is missing. Its first line is kept, with the rank of the process that raised it.

    Returns:
        the error; None where `error` was raised for another reason.
    """
    if isinstance(error, LostProcessError):
        return error
    if not distributed.is_initialized() or isinstance(error, InputError):
        return None
    text = str(error)
    is_lost = isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and _LOST.search(text)
    )
    line = text.strip().partition("\n")[0] or type(error).__name__
    return LostProcessError(f"process {comm.get_rank()}: {cut(line)}") if is_lost else None


def describe_lost(error: LostProcessError, num_machines: int) -> str:
    """The message where all processes of this machine have lost another one, and none has failed.

    Args:
        error: names what each of them met.
        num_machines: of the run.
    """
    where = ", maybe to one of another machine" if num_machines > 1 else ""
    return (
        f"training processes have lost the connection to others{where}. The same command with "
        f"`resume` goes on from the last checkpoint. What they met:\n{error}"
    )


def describe_death(rank: int, exit_code: int) -> tuple[str, int]:
    """The message on a training process that ended without a word, and the exit status for it.

    Args:
        rank: of the process.
        exit_code: minus the number of the signal that ended it.
    """
    number = -exit_code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    likely = ", probably by the system, which was out of memory" if name == "SIGKILL" else ""
    return (
        f"training process {rank} was ended by {name}{likely}. The same command with `resume` goes "
        "on from the last checkpoint",
        128 + number,
    )


@contextmanager
def naming_folder(folder: str) -> Iterator[None]:
    """Name `folder` in an OSError raised within that names no file, as TensorBoard's."""
    try:
        yield
    except OSError as e:
        if e.filename is not None or e.strerror is None:
            raise
        raise OSError(e.errno, e.strerror, folder) from e


@contextmanager
def telling_of_threads() -> Iterator[None]:
    """Log one line, without a traceback, where a thread ends because a file cannot be written.

    TensorBoard writes its files in one. What it meets, such as a full disk, the next checkpoint
    meets as well.
    """
    before = threading.excepthook

    def tell(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, OSError):
            before(args)
            return
        name = args.thread.name if args.thread else "a thread"
        logger.warning("%s has stopped writing: %s", name, args.exc_value)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before
