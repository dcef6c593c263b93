"""Processes that another launcher has started: PyTorch's torchrun, or Slurm's srun."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from detectron2.utils import comm
from torch import distributed

from ..errors import InputError, cut
from .failures import LostProcessError
from .groups import gathering_by, gloo_group

# torchrun's name of a run that was given none by --rdzv-id.
_NO_NAME = "none"
_OF_PROCESS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
# Slurm's steps from this one on are no srun's: an allocation's shell, a batch script and others.
_FIRST_SPECIAL_STEP = 4294967290


@dataclass(frozen=True)
class Launched:
    """What a launcher has told one of the processes that it started.

    Attributes:
        launcher: "torchrun" | "srun".
        rank: of this process in the run.
        world_size: processes of the run.
        local_rank: of this process on its machine.
        machine: equal for the processes of one machine, and for no others.
        run: name of the run, the same after a restart; "" = it has none.
        starter: the launcher of this machine, the same after a restart by it.
        restarts: how often this machine's launcher has started its processes again, or Slurm has
            requeued the job.
        local_size: processes of this machine; 0 = unknown.
        keeps_addresses: whether the launcher keeps the addresses of the processes for those that it
            starts again, as torchrun does where its store serves the processes as well.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    machine: int
    run: str = ""
    starter: str = ""
    restarts: int = 0
    local_size: int = 0
    keeps_addresses: bool = False

    @property
    def may_miss(self) -> bool:
        """Whether processes that are started again may try to reach the former ones.

        On one machine `restarts` tells the addresses of one start from another's. Launchers of
        several machines do not count alike.
        """
        return self.keeps_addresses and self.local_size != self.world_size


def read_environment(environ: Mapping[str, str] = os.environ) -> Launched | None:
    """What torchrun, or srun where there is no torchrun, has set for this process.

    Returns:
        None where this process was started by itself.

    Raises:
        InputError: some of the variables are missing, or have values that cannot be.
    """
    # Some platforms set RANK=0 and WORLD_SIZE=1 for a process that is alone.
    alone = {"RANK": ("", "0"), "WORLD_SIZE": ("", "0", "1"), "TORCHELASTIC_RUN_ID": ("",)}
    if any(environ.get(name, "").strip() not in values for name, values in alone.items()):
        return _of_torchrun(environ)
    # A batch script and the shell of an allocation have SLURM_NTASKS as well, but are not one of
    # the tasks that srun starts.
    step = environ.get("SLURM_STEP_ID", "").strip()
    is_task = bool(step) and not (step.isdecimal() and int(step) >= _FIRST_SPECIAL_STEP)
    if is_task and environ.get(_slurm_tasks(environ), "1").strip() != "1":
        return _of_slurm(environ)
    return None


def _of_torchrun(environ: Mapping[str, str]) -> Launched:
    rank, local_rank, world_size = _numbers(environ, _OF_PROCESS, "torchrun")
    _check_below("RANK", rank, "WORLD_SIZE", world_size)
    _check_below("LOCAL_RANK", local_rank, "WORLD_SIZE", world_size)
    local_size = 0
    if environ.get("LOCAL_WORLD_SIZE", "").strip():
        local_size = _number(environ, "LOCAL_WORLD_SIZE")
        _check_below("LOCAL_RANK", local_rank, "LOCAL_WORLD_SIZE", local_size)
        _check_below("LOCAL_WORLD_SIZE", local_size, "WORLD_SIZE", world_size + 1)
    if world_size > 1:
        _check_meeting(environ, "torchrun")
    # torchrun gives the processes of a machine ranks that follow each other.
    machine = _number(environ, "GROUP_RANK") if environ.get("GROUP_RANK") else rank - local_rank
    run = environ.get("TORCHELASTIC_RUN_ID", "")
    restarts = environ.get("TORCHELASTIC_RESTART_COUNT")
    return Launched(
        *("torchrun", rank, world_size, local_rank, machine),
        run="" if run == _NO_NAME else run,
        starter=_starter() if restarts else "",
        restarts=_number(environ, "TORCHELASTIC_RESTART_COUNT") if restarts else 0,
        local_size=local_size,
        keeps_addresses=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        and environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
        and world_size > 1,
    )


def _of_slurm(environ: Mapping[str, str]) -> Launched:
    tasks = _slurm_tasks(environ)
    names = ("SLURM_PROCID", "SLURM_LOCALID", tasks)
    rank, local_rank, world_size = _numbers(environ, names, "srun")
    _check_below("SLURM_PROCID", rank, tasks, world_size)
    _check_below("SLURM_LOCALID", local_rank, tasks, world_size)
    _check_meeting(environ, "srun")
    node = environ.get("SLURM_NODEID")
    machine = _number(environ, "SLURM_NODEID") if node else rank - local_rank
    # A job that is requeued keeps its number.
    run = f"{environ.get('SLURM_JOB_ID', '')}.{environ['SLURM_STEP_ID']}"
    count = environ.get("SLURM_RESTART_COUNT")
    restarts = _number(environ, "SLURM_RESTART_COUNT") if count else 0
    return Launched("srun", rank, world_size, local_rank, machine, run=run, restarts=restarts)


def _slurm_tasks(environ: Mapping[str, str]) -> str:
    """The variable with the tasks of this step; SLURM_NTASKS may be the whole job's."""
    own = "SLURM_STEP_NUM_TASKS"
    return own if environ.get(own, "").strip() else "SLURM_NTASKS"


def _numbers(environ: Mapping[str, str], names: tuple[str, ...], launcher: str) -> list[int]:
    missing = [name for name in names if not environ.get(name, "").strip()]
    if missing:
        there = [name for name in names if name not in missing]
        raise InputError(
            f"the environment has {', '.join(there)} without {', '.join(missing)}, of which "
            f"{launcher} sets all: start by {launcher}, or unset {', '.join(there)}"
        )
    return [_number(environ, name) for name in names]


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name].strip()
    if not (text.isascii() and text.isdecimal()):
        raise InputError(f"{name} is {cut(text, 20)!r} in the environment; it takes a number >= 0")
    return int(text)


def _check_below(name: str, value: int, of: str, most: int) -> None:
    if value >= most:
        raise InputError(f"the environment has {name}={value}, which does not fit its {of}")


def _check_meeting(environ: Mapping[str, str], launcher: str) -> None:
    missing = [name for name in _MEETING if not environ.get(name, "").strip()]
    if missing:
        raise InputError(
            f"the processes that {launcher} started meet at MASTER_ADDR and MASTER_PORT, and the "
            f"environment lacks {' and '.join(missing)}: set MASTER_ADDR to the first machine's "
            "name and MASTER_PORT to a free port of it (for Slurm see docs/clusters.md)"
        )
    if not 0 < _number(environ, "MASTER_PORT") < 1 << 16:
        raise InputError(f"MASTER_PORT is {environ['MASTER_PORT']}; it takes 1 to 65535")


def _starter() -> str:
    """Host, id and start of the process that started this one."""
    parent = os.getppid()
    with contextlib.suppress(OSError, IndexError):  # a system without /proc
        # The 22nd field; the second one, in brackets, may have spaces.
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{socket.gethostname()} {parent} {started}"
    return f"{socket.gethostname()} {parent}"


@contextlib.contextmanager
def joined(launched: Launched, device: str, timeout: float) -> Iterator[None]:
    """Within it the processes of a run have joined, and Detectron2's comm knows them.

    Args:
        launched: of this process.
        device: "cpu", where they join by gloo, or "cuda": by NCCL, each with its own GPU.
        timeout: seconds after which a process that does not answer is an error.

    Raises:
        InputError: there is no GPU for this process.
        LostProcessError: the others could not be reached.
    """
    if device != "cpu" and (launched.world_size > 1 or torch.cuda.is_available()):
        torch.cuda.set_device(_gpu(launched))
    if launched.world_size == 1:
        yield
        return
    limit = timedelta(seconds=timeout)
    try:
        distributed.init_process_group(
            "gloo" if device == "cpu" else "nccl",
            store=_store_of_start(launched, limit),
            rank=launched.rank,
            world_size=launched.world_size,
            timeout=limit,
        )
        gloo = gloo_group(limit)
        machines: list = [None] * launched.world_size
        distributed.all_gather_object(machines, launched.machine, group=gloo)
    except (distributed.DistError, RuntimeError) as e:
        where = ":".join(os.environ.get(name, "") for name in _MEETING)
        line = cut(str(e).strip().partition("\n")[0])
        raise LostProcessError(
            f"process {launched.rank} of {launched.world_size} has not met the others at {where}: "
            f"{line}"
        ) from e
    before = comm._LOCAL_PROCESS_GROUP
    for machine in sorted({*machines}):  # all processes make all groups
        ranks = [rank for rank, of in enumerate(machines) if of == machine]
        group = distributed.new_group(ranks, timeout=limit)
        if machine == launched.machine:
            comm._LOCAL_PROCESS_GROUP = group
    try:
        with gathering_by(gloo):
            comm.synchronize()
            yield
            comm.synchronize()
            distributed.destroy_process_group()
    finally:
        comm._LOCAL_PROCESS_GROUP = before


def _store_of_start(launched: Launched, limit: timedelta) -> distributed.Store | None:
    """Where the processes of one start alone find each other's addresses; None = PyTorch's place.

    PyTorch issue 135712: it gives processes that torchrun starts again those of the former ones.
    """
    if not launched.keeps_addresses or launched.may_miss:
        return None
    host, port = (os.environ[name] for name in _MEETING)
    store = distributed.TCPStore(host, int(port), is_master=False, timeout=limit)
    return distributed.PrefixStore(f"start {launched.restarts}", store)


def _gpu(launched: Launched) -> int:
    """The GPU of a process, by its rank on its machine."""
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # Slurm's --gpus-per-task shows each process its own GPU alone, as the first.
    is_alone = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_GPUS_PER_TASK")
    if launched.launcher == "srun" and number == 1 and is_alone:
        return 0
    if launched.local_rank >= number:
        raise InputError(
            f"process {launched.local_rank} of this machine needs a GPU of its own, and PyTorch "
            f"finds {number} here: start as many processes as there are GPUs, or add MODEL.DEVICE "
            "cpu to the command"
        )
    return launched.local_rank


def end_with_launcher() -> None:
    """End this process, from now on, once the one that started it has ended.

    A launcher that was killed leaves its processes running: they would hold OUTPUT_DIR against
    those that are started in their place. What they write is whole or absent.
    """
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
