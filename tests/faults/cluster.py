"""Machines of a cluster, played on this one by launchers of PyTorch on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.processes import children, descendants
from tests.helpers import REPOSITORY

# A segmenter whose iteration takes a moment: each process normalises its own images, as a SyncBN
# in each layer waits for all processes.
SMALL = [
    *("INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64", "DATASETS.TEST", "()"),
    *("SOLVER.IMS_PER_BATCH", "8", "DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0"),
    *("MODEL.DEVICE", "cpu", "SEED", "1", "SOLVER.PROCESS_TIMEOUT", "5m"),
    *("SOLVER.CHECKPOINT_PERIOD", "4", "LOGGERS", "[]"),
]
_CONFIG = str(REPOSITORY / "configs/seg_topformer_t_synthetic.yaml")
_STORE = (
    "import sys, time; from torch.distributed import TCPStore;"
    "store = TCPStore('127.0.0.1', int(sys.argv[1]), is_master=True, wait_for_workers=False);"
    "time.sleep(1e6)"
)
# What a run logs when its processes are started, and when they begin to train.
BEGUN, STARTED = "Rank of current process: 0", "Starting training from iteration"
# Seconds; torchrun's own are made for clusters.
_MEETING = "is_host=false,last_call_timeout=3,keep_alive_interval=2,keep_alive_max_attempt=6"


class Cluster:
    """Machines of two processes each, that train into one OUTPUT_DIR.

    Where they meet is kept by a process of its own, as a machine that is killed must not be the one
    that has it.
    """

    def __init__(self, folder: Path, data: Path, *, nodes: str, opts: list[str], name: str = ""):
        """
        Args:
            folder: of the machines' output, and OUTPUT_DIR in it, "run".
            data: DETECTRON2_DATASETS.
            nodes: --nnodes of torchrun.
            opts: KEY VALUE pairs beside SMALL.
            name: --rdzv-id; "" = none is given.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.run = folder, folder / "run"
        self._port = _free_port()
        named = ["--rdzv-id", name] if name else []
        self._command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes),
            *("--nproc-per-node", "2", "--max-restarts", "20", "--rdzv-backend", "c10d", *named),
            *("--rdzv-endpoint", f"127.0.0.1:{self._port}", "--rdzv-conf", _MEETING),
            *("--local-addr", "127.0.0.1", "-m", "topformer_d2", "train"),
            *("--config-file", _CONFIG, *SMALL, "OUTPUT_DIR", str(self.run), *opts),
        ]
        self._environment = {
            **os.environ,
            **{"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "DETECTRON2_DATASETS": str(data)},
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            self._environment.pop(variable, None)
        self.machines: list[subprocess.Popen] = []
        self._started = 0
        self._store = self._start([sys.executable, "-c", _STORE, str(self._port)], "store")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in [*self.machines, self._store]:
            kill_all(machine)

    def start_machine(self) -> subprocess.Popen:
        """One more launcher; its processes' output is in the file "machine N"."""
        machine = self._start(self._command, f"machine {self._started}")
        self._started += 1
        self.machines.append(machine)
        return machine

    def resume(self, number: int) -> None:
        """Start anew, as a user does where the launchers have ended: with --resume."""
        for machine in [*self.machines, self._store]:
            kill_all(machine)
        self.machines.clear()
        port, self._port = self._port, _free_port()
        command = [word.replace(f":{port}", f":{self._port}") for word in self._command]
        self._command = command if "--resume" in command else _with_resume(command)
        self._store = self._start([sys.executable, "-c", _STORE, str(self._port)], "store")
        for _ in range(number):
            self.start_machine()

    def _start(self, command: list[str], name: str) -> subprocess.Popen:
        with open(self.folder / name, "wb") as output:
            return subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def output(self) -> str:
        """What all machines have printed."""
        files = sorted(self.folder.glob("machine *"))
        return "\n".join(file.read_text(errors="replace") for file in files)

    def log(self) -> str:
        """What process 0 has logged since the run began, in order, whatever machine it was on."""
        file = self.run / "log.txt"
        return file.read_text(errors="replace") if file.exists() else ""

    def workers(self, machine: subprocess.Popen) -> list[int]:
        """Processes that train on a machine."""
        return [pid for pid in children(machine.pid) if _variable(pid, "RANK") != ""]

    def has_first(self, machine: subprocess.Popen) -> bool:
        """Whether process 0 of the run is on a machine."""
        return any(_variable(pid, "RANK") == "0" for pid in self.workers(machine))

    def wait(self, seconds: float) -> str:
        """Wait until all machines have ended; what is wrong with how they did, or ""."""
        end = time.monotonic() + seconds
        for number, machine in enumerate(self.machines):
            try:
                status = machine.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                return f"machine {number} has not ended after {seconds:.0f} s"
            if status not in (0, -signal.SIGKILL):
                return f"machine {number} has ended with status {status}"
        return ""

    def wait_for(self, text: str, seconds: float, times: int = 1) -> bool:
        """Wait until the machines have printed a text so often; False where they do not."""
        end = time.monotonic() + seconds
        while self.output().count(text) < times:
            if time.monotonic() > end or all(m.poll() is not None for m in self.machines):
                return False
            time.sleep(0.1)
        return True


def iteration_of(log: str) -> int | None:
    """The iteration that a run has reached, as far as its log tells: to the last checkpoint.

    Returns:
        None where the processes that were started last do not train yet, or no longer.
    """
    last = log.rpartition(BEGUN)[2]
    started = re.search(rf"{STARTED} (\d+)", last)
    if started is None or "model_final.pth" in last:
        return None
    saved = re.findall(r"Saving checkpoint to .*model_(\d+)\.pth", last)
    return int(saved[-1]) + 1 if saved else int(started[1])


def hit(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal to a process; whether it was alive, and after SIGKILL is not."""
    if not is_alive(pid):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    end = time.monotonic() + 60.0
    while number == signal.SIGKILL and is_alive(pid):
        if time.monotonic() > end:
            raise RuntimeError(f"process {pid} has outlived SIGKILL")
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    with contextlib.suppress(OSError, IndexError):
        return _stat(pid)[0] not in "ZX"
    return False


def _with_resume(command: list[str]) -> list[str]:
    place = command.index("--config-file")
    return [*command[:place], "--resume", *command[place:]]


def kill_all(machine: subprocess.Popen) -> bool:
    """Kill a launcher and its processes at once, as a machine that loses its power.

    Returns:
        whether one of its processes that train was alive.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(machine.pid, signal.SIGSTOP)  # it starts none meanwhile
    found = [pid for pid, _ in descendants(machine.pid)]
    was_alive = any(is_alive(pid) and _variable(pid, "RANK") != "" for pid in found)
    for pid in [*found, machine.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    machine.wait()
    return was_alive


def _stat(pid: int) -> list[str]:
    """What /proc says of a process, from its state and its parent on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _variable(pid: int, name: str) -> str:
    """A variable of a process's environment; "" where it has none."""
    with contextlib.suppress(OSError):
        content = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        for pair in content.split("\0"):
            if pair.startswith(f"{name}="):
                return pair.partition("=")[2]
    return ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
