"""Processes that are killed at a random moment, and what the next run makes of what is left."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import torch

from tests.faults.child import Outcome, Task, run
from tests.faults.world import CONFIG, SMALL, World, call_tool

_ITERATIONS = 8


def training(seed: int, world: World) -> Iterator[str]:
    """A run with a checkpoint every second iteration, killed and resumed until it ends.

    Gives a line for each kill, and at the end what differs from the run that was not disturbed.
    """
    rng = random.Random(seed)
    undisturbed, seconds = _undisturbed_training(world)
    out = world.fresh(f"kill training {seed}")
    for _ in range(8):
        kill_after = rng.uniform(0.2, 1.1) * seconds
        outcome, wrong = run(_training(out, resume=True, kill_after=kill_after))
        if not outcome.stopped:
            break
        yield wrong
    else:
        outcome, wrong = run(_training(out, resume=True))
    if outcome.status and not wrong:
        wrong = f"the resumed run ended with status {outcome.status}: {outcome.output[-400:]}"
    yield wrong or _differing_weights(undisturbed, out / "model_final.pth")


def _training(out: Path, *, resume: bool, kill_after: float | None = None) -> Task:
    arguments = ["--config-file", CONFIG, *(["--resume"] if resume else [])]
    opts = ["SOLVER.MAX_ITER", _ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 2, "OUTPUT_DIR", out]
    tool = call_tool("train_net", *arguments, *SMALL, *opts)
    return Task(tool, _fault_unless_killed, seconds=180, kill_after=kill_after)


def _fault_unless_killed(outcome: Outcome) -> str:
    return "" if outcome.stopped == "kill" else outcome.fault()


@cache
def _undisturbed_training(world: World) -> tuple[Path, float]:
    """The weights of a whole run, and the seconds that it takes."""
    out = world.fresh(f"undisturbed {os.getpid()}")
    outcome, wrong = run(_training(out, resume=False))
    if wrong or outcome.status:
        raise RuntimeError(f"the undisturbed run failed: {wrong}\n{outcome.output}")
    return out / "model_final.pth", outcome.seconds


def _differing_weights(expected: Path, given: Path) -> str:
    if not given.is_file():
        return "the resumed run wrote no model_final.pth"
    one, other = (
        torch.load(path, map_location="cpu", weights_only=True)["model"]
        for path in (expected, given)
    )
    different = [key for key in one if not torch.equal(one[key], other.get(key, torch.empty(0)))]
    return f"{len(different)} tensors differ after resuming: {different[:2]}" if different else ""


# From the world and an empty folder to a tool's name and arguments.
COMMANDS: dict[str, Callable[[World, Path], tuple]] = {
    "preparation of pixels": lambda world, root: (
        *("prepare_camvid", "--source", world.archive),
        *("--root", root),
    ),
    "preparation of boxes": lambda world, root: (
        *("prepare_voc_detection", "--source", world.voc),
        *("--name", "own", "--root", root),
    ),
    "prediction of a folder": lambda world, root: (
        *("predict", "--model", world.onnx, "--input", world.images),
        *("--output", root / "out", "--save-json", root / "boxes.jsonl"),
    ),
    "prediction of a video": lambda world, root: (
        *("predict", "--model", world.onnx, "--input", world.video),
        *("--output", root / "out.mp4"),
    ),
}


def repeated(name: str, seed: int, world: World) -> Iterator[str]:
    """Kill a tool once, look for half files, run it again, and compare with an undisturbed run."""
    rng = random.Random(seed)
    whole, seconds = _undisturbed(world, name)
    root = world.fresh(f"kill {name} {seed}")
    task = Task(call_tool(*COMMANDS[name](world, root)), _fault_unless_killed)
    killed = Task(task.run, task.check, kill_after=rng.uniform(0.1, 1.0) * seconds)
    _, wrong = run(killed)
    half = {k: v for k, v in _content(root).items() if whole.get(k, v) != v}
    if half and not wrong:
        wrong = f"half or other files after a kill: {sorted(half)}"
    outcome, again = run(task)
    wrong = wrong or again or ("" if outcome.status == 0 else outcome.output[-300:])
    yield wrong or ("" if _content(root) == whole else _difference(root, whole))


@cache
def _undisturbed(world: World, name: str) -> tuple[dict[str, str], float]:
    root = world.fresh(f"undisturbed {name} {os.getpid()}")
    outcome, wrong = run(Task(call_tool(*COMMANDS[name](world, root)), Outcome.fault))
    if wrong or outcome.status:
        raise RuntimeError(f"{name} failed: {wrong}\n{outcome.output}")
    return _content(root), outcome.seconds


def _difference(root: Path, whole: dict[str, str]) -> str:
    given = _content(root)
    return f"other files than of a run without a kill: {sorted(given.items() ^ whole.items())[:3]}"


def _content(root: Path) -> dict[str, str]:
    """{path: digest} of all files but locks and what is being written."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != ".lock" and not path.name.endswith(".partial"):
            content = path.read_bytes()
            if path.suffix == ".json":  # the date of writing may be in it
                content = json.dumps(json.loads(content), sort_keys=True).encode()
            found[str(path.relative_to(root))] = hashlib.sha256(content).hexdigest()
    return found


KINDS: dict[str, Callable[[int, World], Iterator[str]]] = {
    "training": training,
    **{name: partial(repeated, name) for name in COMMANDS},
}
