"""Running a piece of the package in a forked process with a time limit and a memory limit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What stands for the exit status of a process that an exception ended, as in Python.
RAISED = 1


@dataclass(frozen=True)
class Task:
    """What one process is to do.

    Attributes:
        run: called in the process; what it prints is kept. SystemExit gives the status.
        check: called afterwards in the parent with the outcome; gives what is wrong, or "".
        seconds: after which the process is killed.
        kill_after: seconds after which it is killed on purpose; None = it is not.
        memory: MiB that it may take.
        file_size: bytes that a file of it may have, which stands for a full disk; None = any.
    """

    run: Callable[[], object]
    check: Callable[[Outcome], str]
    seconds: float = 60.0
    kill_after: float | None = None
    memory: int = 2000
    file_size: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        status: exit status; negative for the signal that killed it.
        output: what it printed, standard error included.
        seconds: that it ran.
        stopped: "" | "time" | "memory" (a limit) | "kill" (on purpose).
    """

    status: int
    output: str
    seconds: float
    stopped: str = ""

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.output

    def fault(self) -> str:
        """What is wrong with a process that was given a bad file, whatever the file; or ""."""
        if self.stopped in ("time", "memory"):
            return f"it took more {self.stopped} than is allowed ({self.seconds:.0f} s)"
        if self.has_traceback:
            return f"traceback: {self.output.rstrip().splitlines()[-1][:300]}"
        if self.status < 0:
            return f"it died of {signal.Signals(-self.status).name}"
        if self.status and not any(
            word in self.output
            for word in ("error: ", "skipped: ", "warning: ", "PROBLEM: ", "interrupted")
        ):
            return f"status {self.status} without a message: {self.output[-300:]!r}"
        return ""


class _Running:
    """A process that has been started."""

    def __init__(self, task: Task):
        self.task = task
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by finish)
        self._start = time.monotonic()
        self._stopped = ""
        # Memory that this process has freed and kept would be the child's without being counted.
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)
        # The child's is not more at its start; it may have grown before it is first looked at.
        self._first_resident = _resident(os.getpid())
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _be_the_child(task, self._output.fileno())

    def poll(self) -> Outcome | None:
        """None while it runs."""
        pid, status, _ = os.wait4(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self._start
        if pid:
            self._kill_group()  # processes that it has left
            self._output.seek(0)
            output = self._output.read().decode(errors="replace")
            self._output.close()
            return Outcome(os.waitstatus_to_exitcode(status), output, seconds, self._stopped)
        limit = self.task.kill_after
        if limit is not None and seconds > limit:
            self._stop("kill")
        elif seconds > self.task.seconds:
            self._stop("time")
        else:
            if _resident(self.pid) - self._first_resident > self.task.memory:
                self._stop("memory")
        return None

    def _stop(self, why: str) -> None:
        self._stopped = self._stopped or why
        os.kill(self.pid, signal.SIGKILL)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def run(task: Task) -> tuple[Outcome, str]:
    """Run a task to its end; its outcome and what is wrong with it, or ""."""
    running = _Running(task)
    while (outcome := running.poll()) is None:
        time.sleep(0.005)
    return outcome, task.check(outcome)


def _be_the_child(task: Task, output: int) -> None:
    """Never returns."""
    status = RAISED
    try:
        os.setpgrp()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Where a test runner has put its own in their place.
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        if task.file_size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails with EFBIG
            resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_size, task.file_size))
        result = task.run()
        status = result if isinstance(result, int) else 0
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)


def _resident(pid: int) -> float:
    """MiB of its own memory, without that of files, swapped or not; 0 where none is said."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(kib) for kib in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+)", status, re.M)) / 1024
