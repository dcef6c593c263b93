"""How many processes a run has, and what is refused before any of them is started."""

from __future__ import annotations

import os

import torch
from detectron2.utils import comm

from ..errors import InputError

# What torchrun, and launchers like it, set for each process that they start.
_VARIABLE = "WORLD_SIZE"
# Processes on the CPU that any machine takes, to try a run of several.
_FEW = 4


def check_single_run() -> None:
    """Raise InputError in a process that is one of several but has not joined them.

    Each of torchrun's processes would train all by itself and write the same OUTPUT_DIR. Processes
    of Detectron2's launch, and of programs that have called torch.distributed's
    init_process_group, have joined.
    """
    given = os.environ.get(_VARIABLE, "").strip()
    if given in ("", "0", "1") or comm.get_world_size() > 1:
        return
    raise InputError(
        f"the environment has {_VARIABLE}={given[:20]!r}, as torchrun sets it, but this process "
        "has not joined the others: `topformer train` does so by itself; in a program call "
        f"torch.distributed's init_process_group first, or unset {_VARIABLE}"
    )


def check_processes(
    num_gpus: int, num_machines: int = 1, machine_rank: int = 0, device: str = "cuda"
) -> int:
    """The number of processes on this machine for `launch`.

    Args:
        num_gpus: one process each; 0 = a single process. With the device "cpu", so many processes
            on the CPU.
        num_machines, machine_rank: as launch takes them.
        device: MODEL.DEVICE.

    Raises:
        InputError: this machine has fewer GPUs, or on the CPU fewer cores, or a number is out of
            its range.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = max(_FEW, os.cpu_count() or 1)
    if num_gpus < 0:
        raise InputError(f"the number of GPUs is {num_gpus}; it takes 0 or more")
    if device != "cpu" and num_gpus > max(1, available):
        raise InputError(
            f"the number of GPUs is {num_gpus}, but this machine has {available} that PyTorch finds"
        )
    if device == "cpu" and num_gpus > cores:
        raise InputError(
            f"the number of processes on the CPU is {num_gpus}; with the cores of this machine it "
            f"takes at most {cores}"
        )
    if num_machines < 1:
        raise InputError(f"the number of machines is {num_machines}; it takes 1 or more")
    if not 0 <= machine_rank < num_machines:
        raise InputError(
            f"the machine's rank is {machine_rank}; of {num_machines} machines it takes 0 to "
            f"{num_machines - 1}"
        )
    if num_machines > 1 and (device == "cpu" or not available):
        raise InputError(
            f"the number of machines is {num_machines}, but runs on several machines need GPUs, "
            "and PyTorch finds none here"
        )
    return max(1, num_gpus)
