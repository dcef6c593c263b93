"""Which processes of a run exchange objects with each other, and how long they wait."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from datetime import timedelta

from detectron2.utils import comm
from torch import distributed


def gloo_group(limit: timedelta) -> distributed.ProcessGroup:
    """The group of all processes by gloo; they call this together once they have joined.

    Args:
        limit: after which a process that does not answer is an error for the others.
    """
    if distributed.get_backend() == "gloo":
        return distributed.group.WORLD  # which has the limit of init_process_group
    return distributed.new_group(backend="gloo", timeout=limit)


# Warnings of PyTorch in each process, about calls that are Detectron2's, and about the layout of
# gradients, which DistributedDataParallel copies. A user cannot do anything about them.
_NOT_FOR_USERS: tuple[tuple[str, type[Warning]], ...] = (
    ("`broadcast_buffers` is deprecated", FutureWarning),
    ("TypedStorage is deprecated", UserWarning),
    ("Grad strides do not match bucket view strides", UserWarning),
)


@contextlib.contextmanager
def gathering_by(group: distributed.ProcessGroup) -> Iterator[None]:
    """Within it Detectron2's comm exchanges objects in a group of all processes.

    The group that it makes by itself on GPUs waits for 30 minutes, whatever the time-out. Some
    warnings that PyTorch has for processes of a run are not shown within.
    """
    before = comm._get_global_gloo_group
    comm._get_global_gloo_group = lambda: group
    try:
        with warnings.catch_warnings():
            for message, category in _NOT_FOR_USERS:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        comm._get_global_gloo_group = before


def ranks_of_machine() -> list[int]:
    """The ranks of the processes on this machine, ascending; this process's alone if unknown."""
    group = comm._LOCAL_PROCESS_GROUP
    return [comm.get_rank()] if group is None else distributed.get_process_group_ranks(group)
