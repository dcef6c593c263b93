"""The peak memory of a call."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path


def added_memory(call: Callable[[], object]) -> float:
    """MiB that `call` adds at its peak to the memory of the process (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _process_memory("VmRSS")
    call()
    return _process_memory("VmHWM") - before


def _process_memory(field: str) -> float:
    """MiB, of /proc/self/status."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024
