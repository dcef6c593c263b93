"""Which processes come from which, by Linux's /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that one has started, and that are still there."""
    return _by_parent().get(pid, [])


def descendants(pid: int) -> list[tuple[int, str]]:
    """(process, title) of all processes that come from one."""
    by_parent = _by_parent()
    found, todo = [], [pid]
    while todo:
        for child in by_parent.get(todo.pop(), []):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
                found.append((child, title.decode(errors="replace")))
            todo.append(child)
    return found


def _by_parent() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                found.setdefault(int(fields[1]), []).append(int(entry))
    return found


def kill_one(word: str, ended: Callable[[], bool]) -> bool:
    """Kill a worker of a Ray of ours whose title has the word; whether there was one in time.

    Args:
        ended: whether there will be none anymore.
    """
    while not ended():
        for pid, title in descendants(os.getpid()):
            if title.startswith("ray::") and word in title:
                os.kill(pid, signal.SIGKILL)
                return True
        time.sleep(0.001)
    return False
