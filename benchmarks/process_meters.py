"""CPU time and memory of this process and of all that come from it, by what they do."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tests.faults.processes import descendants

# What a process does, and a word of its title. One that reads and predicts is an actor.
_KINDS = {"actors": "PredictingActor", "readers": "read_block", "pool": "spawn_main"}
KINDS = ("driver", *_KINDS, "ray")
_TICKS = os.sysconf("SC_CLK_TCK")


def kind_of(title: str) -> str:
    """What a process does that is not this one: one of KINDS."""
    return next((kind for kind, word in _KINDS.items() if word in title), "ray")


class CpuMeter:
    """CPU seconds of this process and of all that come from it, looked at as long as they live."""

    def __init__(self) -> None:
        self._ticks: dict[int, int] = {}
        self._kinds: dict[int, str] = {}
        self._begin: dict[int, int] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuMeter:
        self._look()
        self._begin = dict(self._ticks)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._look()
        self._stopped.set()
        self._thread.join()

    def mark(self) -> dict[int, int]:
        """How far each process is now, for `seconds`."""
        self._look()
        return dict(self._ticks)

    def seconds(
        self, begin: dict[int, int] | None = None, end: dict[int, int] | None = None
    ) -> Counter[str]:
        """What was used by each kind of process, between two marks; None = all that was seen."""
        begin = self._begin if begin is None else begin
        found: Counter[str] = Counter()
        for pid, ticks in (self._ticks if end is None else end).items():
            found[self._kinds[pid]] += (ticks - begin.get(pid, 0)) / _TICKS
        return found

    def _watch(self) -> None:
        while not self._stopped.wait(0.5):
            self._look()

    def _look(self) -> None:
        with self._lock:
            for pid, title in ((os.getpid(), ""), *descendants(os.getpid())):
                with contextlib.suppress(OSError):
                    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    self._ticks[pid] = int(values[11]) + int(values[12])
                    kind = kind_of(title) if pid != os.getpid() else "driver"
                    # A worker of Ray has a title of its own only as long as it works.
                    if self._kinds.get(pid, "ray") == "ray":
                        self._kinds[pid] = kind


def memory_of(pid: int) -> int:
    """MiB of a process's own memory, without what it shares with others."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        if found := re.search(r"^RssAnon:\s+(\d+)", status, re.M):
            return int(found[1]) >> 10
    return 0


def store_of(pid: int) -> int:
    """MiB that the object store of a raylet takes, whose file has no name any more."""
    blocks = 0
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "plasma" in os.readlink(descriptor):
                    blocks += os.stat(descriptor).st_blocks
    return blocks * 512 >> 20


def watch(done: Callable[[], int], file: TextIO, stopped: threading.Event, seconds: float) -> None:
    """Write a line of memory every so many seconds."""
    print("seconds,images,driver_mib,actors_mib,ray_mib,object_store_mib", file=file)
    start = time.monotonic()
    while not stopped.wait(seconds):
        sums: Counter[str] = Counter(driver=memory_of(os.getpid()))
        store = 0
        for pid, title in descendants(os.getpid()):
            sums[kind_of(title)] += memory_of(pid)
            store += store_of(pid) if "raylet_socket_name" in title else 0
        row = (time.monotonic() - start, done(), sums["driver"], sums["actors"], sums["ray"], store)
        print(",".join(f"{value:.0f}" for value in row), file=file, flush=True)
