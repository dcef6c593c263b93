"""Disks that are full at a random moment."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.faults.child import Outcome, Task, run
from tests.faults.kills import COMMANDS
from tests.faults.world import CONFIG, SMALL, World, call_tool


def full_disk(name: str, seed: int, world: World) -> Iterator[str]:
    """A tool that writes to a disk with too little room, then to one with enough."""
    rng = random.Random(seed)
    out = world.fresh(f"disk {name} {seed}")
    with _small_disk(out / "disk", rng) as (disk, limit):
        keep = disk / "kept"
        with contextlib.suppress(OSError):
            keep.write_bytes(b"kept")
        tool = call_tool(*_COMMANDS_AND_TRAINING[name](world, disk))
        _, wrong = run(Task(tool, Outcome.fault, file_size=limit, seconds=120))
        left = [path.name for path in disk.rglob("*.partial")]
        if left and not wrong:
            wrong = f"left behind: {left}"
        if keep.exists() and keep.read_bytes() != b"kept" and not wrong:
            wrong = "a file of another's is gone"
        yield wrong
    shutil.rmtree(out, ignore_errors=True)


@contextlib.contextmanager
def _small_disk(folder: Path, rng: random.Random) -> Iterator[tuple[Path, int | None]]:
    """A folder on a disk of a random size where this process may mount one.

    Elsewhere an ordinary folder and a limit for the size of a file.
    """
    folder.mkdir()
    size = int(2 ** rng.uniform(12, 25))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        yield folder, size
        return
    try:
        yield folder, None
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def _training(world: World, disk: Path) -> tuple:
    opts = ["SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1, "OUTPUT_DIR", disk / "run"]
    return ("train_net", "--config-file", CONFIG, *SMALL, *opts)


def _export(world: World, disk: Path) -> tuple:
    return (
        *("export_model", "--format", "onnx", "--config-file", CONFIG, "--weights", world.weights),
        *("--output", disk / "model.onnx", "--size", 64, 96, *SMALL),
    )


def _conversion(world: World, disk: Path) -> tuple:
    return (
        "convert_weights",
        world.weights,
        disk / "segmenter.safetensors",
        "--extract",
        "sem_seg",
    )


_COMMANDS_AND_TRAINING = {
    "training": _training,
    **COMMANDS,
    "export": _export,
    "conversion of weights": _conversion,
}
KINDS = tuple(_COMMANDS_AND_TRAINING)
