"""Which processes of a run exchange objects with each other, and how long they wait."""

from __future__ import annotations

import contextlib
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


@contextlib.contextmanager
def gathering_by(group: distributed.ProcessGroup) -> Iterator[None]:
    """Within it Detectron2's comm exchanges objects in a group of all processes.

    The group that it makes by itself on GPUs waits for 30 minutes, whatever the time-out.
    """
    before = comm._get_global_gloo_group
    comm._get_global_gloo_group = lambda: group
    try:
        yield
    finally:
        comm._get_global_gloo_group = before


def ranks_of_machine() -> list[int]:
    """The ranks of the processes on this machine, ascending; this process's alone if unknown."""
    group = comm._LOCAL_PROCESS_GROUP
    return [comm.get_rank()] if group is None else distributed.get_process_group_ranks(group)
