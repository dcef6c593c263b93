"""How glibc treats the memory of a network's maps."""

from __future__ import annotations

import ctypes
import os
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The largest block that is taken from the heap, by whether a network is trained: glibc itself goes
# up to 32 MiB, and older ones take no more. The maps of a batch are larger than that.
_LARGEST = {False: (32 << 20,), True: (1 << 30, 32 << 20)}
# Free bytes at the heap's end that are kept. A step of a training frees nearly all that it took.
_KEPT = {False: 128 << 20, True: (1 << 31) - 1}
# With which a user sets the same; the last one also has settings of other parts of glibc.
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
_TUNABLES, _OF_MALLOC = "GLIBC_TUNABLES", "glibc.malloc."

# Whether a training of this process has asked.
_trains = False


def keep_freed_memory(*, training: bool = False) -> None:
    """Let glibc keep freed memory for the next call of a network.

    PyTorch frees a network's maps in each call, and MNN its copies of the input. By glibc's own
    rule the memory often goes back to the system, and its pages are faulted in again in the next
    call. This holds for the process, and for those that it forks. It does nothing without glibc,
    and where an environment variable sets malloc up.

    Args:
        training: keep up to 2 GiB at the heap's end, for steps of a training, and not 128 MiB. A
            later call for a network that is not trained lowers nothing.
    """
    is_set = any(name in os.environ for name in _VARIABLES)
    if sys.platform != "linux" or is_set or _OF_MALLOC in os.environ.get(_TUNABLES, ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Any threshold that is set ends glibc's own rule for both, so that one alone would be worse.
    global _trains
    if mallopt is None or (_trains and not training):
        return
    _trains = training
    if any(mallopt(_M_MMAP_THRESHOLD, n) for n in _LARGEST[training]):
        mallopt(_M_TRIM_THRESHOLD, _KEPT[training])
