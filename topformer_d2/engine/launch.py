"""Starting the processes of a run: one for each GPU, or several on the CPU."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

import torch
from detectron2 import engine
from detectron2.engine import defaults
from detectron2.utils import comm
from torch import distributed
from torch.nn.parallel import DistributedDataParallel


def launch(
    main: Callable,
    processes: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str = "cuda",
    args: tuple = (),
) -> None:
    """Call main(*args) in each process of a run, once all have joined.

    Args:
        main: a function of a module.
        processes: of this machine; a single one is this process.
        num_machines, machine_rank, dist_url: as Detectron2's launch takes them; for GPUs alone.
        device: where the model runs. On "cpu" the processes join by gloo, which Detectron2 v0.6
            does not do.

    Raises:
        torch.multiprocessing.ProcessExitedException: a process ended by itself with another status
            than 0; the others are then ended.
    """
    if processes == 1 or device != "cpu":
        engine.launch(
            main,
            processes,
            num_machines=num_machines,
            machine_rank=machine_rank,
            dist_url=dist_url,
            args=args,
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{os.path.join(folder, 'meeting')}"
        torch.multiprocessing.spawn(_join, (processes, meeting, main, args), nprocs=processes)


def _join(rank: int, processes: int, meeting: str, main: Callable, args: tuple) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    distributed.init_process_group("gloo", meeting, rank=rank, world_size=processes)
    comm._LOCAL_PROCESS_GROUP = distributed.group.WORLD
    comm.synchronize()
    main(*args)
    comm.synchronize()
    distributed.destroy_process_group()


@contextlib.contextmanager
def wrapping_for_device(device: str) -> Iterator[None]:
    """Let Detectron2's trainer wrap a model for several processes on any device.

    Detectron2's create_ddp_model names a GPU, which PyTorch refuses for a model on the CPU.
    """
    if str(device) != "cpu" or comm.get_world_size() == 1:
        yield
        return
    original = defaults.create_ddp_model
    defaults.create_ddp_model = DistributedDataParallel
    try:
        yield
    finally:
        defaults.create_ddp_model = original
