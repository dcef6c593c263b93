"""Starting the processes of a run: one for each GPU, or several on the CPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing import connection
from typing import Any

import torch
from detectron2 import engine
from detectron2.engine import defaults
from detectron2.utils import comm
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError, is_out_of_memory
from ..modeling.sync_batch_norm import with_cpu_sync_batch_norm
from .failures import LOST_CONNECTION, LostProcessError, as_lost_process
from .groups import gathering_by, gloo_group

# Detectron2 v0.6 calls `spawn` and its main branch this, so that launch replaces both.
_start_processes = torch.multiprocessing.start_processes
# Seconds: once a process has failed, the others have as many to end by themselves, then as many
# after SIGTERM. A process whose GPU waits for another one's does not notice either.
_GRACE = 12.0


def launch(
    main: Callable,
    processes: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str = "cuda",
    timeout: float = 1800.0,
    args: tuple = (),
) -> None:
    """Call main(*args) in each process of a run, once all have joined.

    Where one of several processes fails, the others end as well, within half a minute. Ctrl-C and
    SIGTERM are handed on to all of them as one Ctrl-C, and waited for; the next one is SIGTERM, and
    the third SIGKILL.

    Args:
        main: a function of a module.
        processes: of this machine; a single one is this process.
        num_machines, machine_rank, dist_url: as Detectron2's launch takes them; for GPUs alone.
        device: where the model runs. On "cpu" the processes join by gloo, which Detectron2 v0.6
            does not do.
        timeout: seconds after which a process that does not answer is an error for the others.

    Raises:
        InputError, OSError, or what a lack of memory raises: the first of the processes' own.
        LostProcessError: all that failed have lost the connection to another process.
        torch.multiprocessing.ProcessExitedException: one has ended with another status than 0;
            another exception than these is then on stderr.
    """
    if processes * num_machines == 1:
        main(*args)
    elif device == "cpu":
        with tempfile.TemporaryDirectory() as folder:
            meeting = f"file://{os.path.join(folder, 'meeting')}"
            _spawn(_join, (processes, meeting, main, args, timeout), processes)
    else:
        with (
            _replaced(torch.multiprocessing, "spawn", _spawn),
            _replaced(torch.multiprocessing, "start_processes", _spawn),
        ):
            engine.launch(
                _within_limit,
                processes,
                num_machines=num_machines,
                machine_rank=machine_rank,
                dist_url=dist_url,
                args=(main, args, timeout),
                timeout=timedelta(seconds=timeout),
            )


def _join(
    rank: int, processes: int, meeting: str, main: Callable, args: tuple, timeout: float = 1800.0
) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    limit = timedelta(seconds=timeout)
    distributed.init_process_group("gloo", meeting, limit, rank=rank, world_size=processes)
    comm._LOCAL_PROCESS_GROUP = distributed.group.WORLD
    with gathering_by(distributed.group.WORLD):
        comm.synchronize()
        main(*args)
        comm.synchronize()
    distributed.destroy_process_group()


def _within_limit(main: Callable, args: tuple, timeout: float) -> None:
    """Call main(*args) in a process that Detectron2's launch has let join the others."""
    with gathering_by(gloo_group(timedelta(seconds=timeout))):
        main(*args)


def _spawn(function: Callable, args: tuple = (), nprocs: int = 1, daemon: bool = False) -> None:
    """torch.multiprocessing.spawn with launch's way of ending; function(rank, *args) is called."""
    errors = torch.multiprocessing.get_context("spawn").SimpleQueue()
    try:
        with _holding_signals():
            context = _start_processes(
                _run,
                (function, args, errors),
                nprocs,
                join=False,
                daemon=daemon,
                start_method="spawn",
            )
        failed = _wait_for_all(context.processes)
    except KeyboardInterrupt:  # SIGTERM, where the command runs, is one
        _interrupt(context.processes)
        own, _ = _take_all(errors)
        if own:  # such as a disk too full for the checkpoint
            raise own[0] from None
        raise
    own, lost = _take_all(errors)
    if own:
        raise own[0]
    if failed is not None:
        process = context.processes[failed]
        if process.exitcode == LOST_CONNECTION and lost:
            raise LostProcessError("\n".join(str(error) for error in lost))
        raise torch.multiprocessing.ProcessExitedException(
            f"process {failed} has ended with status {process.exitcode}",
            error_index=failed,
            error_pid=process.pid,
            exit_code=process.exitcode,
        )


def _take_all(errors: Any) -> tuple[list[Exception], list[LostProcessError]]:
    """The processes' own errors, and those of the processes that have lost another one."""
    found: list[Exception] = []
    while not errors.empty():
        found.append(errors.get())
    own = [error for error in found if not isinstance(error, LostProcessError)]
    return own, [error for error in found if isinstance(error, LostProcessError)]


def _run(rank: int, function: Callable, args: tuple, errors: Any) -> None:
    """What a process does; an error that the user can fix is told by the one that started it."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal's Ctrl-C and a scheduler's SIGTERM come from that one alone
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_after_parent, daemon=True).start()
    try:
        function(rank, *args)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as e:
        if lost := as_lost_process(e):
            errors.put(lost)
            sys.exit(LOST_CONNECTION)
        if isinstance(e, (InputError, OSError)) or is_out_of_memory(e):
            errors.put(e)
        else:
            traceback.print_exc()
        sys.exit(1)


def _end_after_parent() -> None:
    """End this process some time after the one that started it, if it has not ended by then.

    PyTorch sends it a Ctrl-C when that dies, but not where it died before, and one that waits for
    the others to join takes no signal.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        time.sleep(5 * _GRACE)  # for the checkpoint that Ctrl-C saves
        os._exit(1)


@contextlib.contextmanager
def _holding_signals() -> Iterator[None]:
    """No signal leaves some processes started and others not: SIGTERM comes at the block's end.

    Ctrl-C does nothing within, nor in processes that are started here until they call _run: they
    import for long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A function, unlike SIG_IGN, is not inherited: SIGTERM ends a process that was just started.
    terminate = signal.signal(signal.SIGTERM, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
    if held:
        signal.raise_signal(signal.SIGTERM)


def _wait_for_all(processes: Sequence) -> int | None:
    """Wait until all have ended; the index of the one that failed, where one did.

    Raises:
        KeyboardInterrupt: it came meanwhile; the processes may still run.
    """
    running = list(processes)
    failed: list = []
    while running and not failed:
        failed = [p for p in _wait_for_some(running) if p.exitcode]
    for end in (None, "terminate", "kill"):
        for process in running:
            if end is not None:
                getattr(process, end)()
        until = time.monotonic() + _GRACE
        while running and (left := until - time.monotonic()) > 0:
            ended = _wait_for_some(running, left)
            failed += [p for p in ended if p.exitcode and end is None]
    # Those that only lost the one that failed may be seen before it.
    causes = [p for p in failed if p.exitcode != LOST_CONNECTION] or failed
    return processes.index(causes[0]) if causes else None


def _wait_for_some(running: list, seconds: float | None = None) -> list:
    """Take those that have ended off the list, and return them; wait for one for some seconds."""
    ready = connection.wait([process.sentinel for process in running], seconds)
    ended = [process for process in running if process.sentinel in ready]
    for process in ended:
        process.join()
        running.remove(process)
    return ended


def _interrupt(processes: Sequence) -> None:
    """End all processes in order, or where another interruption comes meanwhile, faster."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        for process in processes:
            if process.is_alive():
                is_in_run = not hasattr(os, "getpgid") or os.getpgid(process.pid) == process.pid
                os.kill(process.pid, number if is_in_run else signal.SIGTERM)
        with contextlib.suppress(KeyboardInterrupt):
            _wait_for_all(processes)
            return


@contextlib.contextmanager
def wrapping_for_device(device: str) -> Iterator[None]:
    """Let Detectron2's trainer wrap a model for several processes on any device.

    Detectron2's create_ddp_model names a GPU, which PyTorch refuses for a model on the CPU. There
    gradients are also summed in one order from the first iteration on, so that a resumed run is
    exact: DistributedDataParallel arranges them anew after its first iteration, unless it looks for
    parameters without a gradient.
    """
    if str(device) != "cpu" or comm.get_world_size() == 1:
        yield
        return
    with _replaced(defaults, "create_ddp_model", _wrap_for_cpu):
        yield


def _wrap_for_cpu(model: nn.Module, **kwargs: Any) -> DistributedDataParallel:
    model = with_cpu_sync_batch_norm(model)
    return DistributedDataParallel(model, find_unused_parameters=True, **kwargs)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    """Within it a module has another function of that name."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
