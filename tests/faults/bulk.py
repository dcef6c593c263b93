"""Break bulk prediction on Ray on purpose, and count what is lost or doubled.

python -m tests.faults.bulk --tries 3 --output table.md
python -m tests.faults.bulk --only "an actor is killed"

A small Ray of two nodes runs on this machine. Each try predicts synthetic images with a stand-in
for a model, and injects its fault at a random moment of it. Then the same call is made again until
all is done, as a user would, and every file is compared with those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import kill_one
from tests.faults.stand_in import POISONED, SIZE, bulk, contents, write_inputs
from tests.helpers import REPOSITORY
from topformer_d2.errors import InputError, show_input_errors
from topformer_d2.inference.bulk import RayEngine, list_inputs

PATIENCE = 900.0  # seconds; what is waited for comes in a few on an idle machine


def doubled(output: Path) -> int:
    """Images of which there are two label maps, two lines of boxes or two rejects."""
    found: Counter = Counter()
    for path in output.glob("part-*/labels/*"):
        found["label", path.name] += 1
    for path in output.glob("part-*/boxes.jsonl"):
        for line in path.read_text().splitlines():
            found["boxes", json.loads(line)["image_id"]] += 1
    for line in (output / "rejects.jsonl").read_text().splitlines():
        found["reject", json.loads(line)["path"]] += 1
    return sum(count - 1 for count in found.values())


class Cluster:
    """Two nodes of Ray on this machine, which processes of this one are.

    Each says that it has a GPU, which the stand-in does not use: Ray then reads in tasks of their
    own, where an actor without a GPU reads its images itself.
    """

    def __init__(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # A node that is slow to answer is not lost; a killed one refuses the question at once.
        os.environ.setdefault("RAY_health_check_timeout_ms", "120000")
        from ray.cluster_utils import Cluster as RayCluster

        node = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 << 20}
        self._ray = RayCluster(
            initialize_head=True, head_node_args=node | {"include_dashboard": False}
        )
        self._node = node
        self.address = self._ray.address
        self.add_node()

    def kill_node(self) -> None:
        """Kill all processes of the second node at once."""
        self._ray.remove_node(self._second, allow_graceful=False)

    def add_node(self) -> None:
        """Start the second; in the main thread, as Ray sets signal handlers there.

        Before, Ray must know that a node that was killed is gone: both are counted.
        """
        self._ray.wait_for_nodes(PATIENCE)
        self._second = self._ray.add_node(wait=False, **self._node)
        self._ray.wait_for_nodes(PATIENCE)

    def shutdown(self) -> None:
        self._ray.shutdown()


@dataclass
class Row:
    """What came of one kind of fault."""

    tries: int = 0
    injected: int = 0
    whole: int = 0
    lost: int = 0
    doubled: int = 0


def count(row: Row, inputs: Path, output: Path, expected: dict[str, bytes]) -> None:
    """Compare a run that has ended with an undisturbed one."""
    found = contents(output)
    row.tries += 1
    row.lost += sum(found.get(name) != content for name, content in expected.items())
    left_over = len(list(output.glob(".*partial*")))
    row.doubled += doubled(output) + left_over
    counts = json.loads((output / "manifest.json").read_text())["counts"]
    row.whole += counts["done"] + counts["rejected"] == len(list_inputs(inputs))


Injection = Callable[["Cluster", Path, Path, random.Random], int]


Ended = Callable[[], bool]


def while_running(inject: Callable[[Ended], bool], run: Callable[[], object]) -> int:
    """Inject a fault in a thread of its own while this one runs; how many were injected.

    Args:
        inject: is given whether the run has ended, after which it need not wait for anything.
    """
    done: list[bool] = []
    ended = threading.Event()
    thread = threading.Thread(target=lambda: done.append(inject(ended.is_set)))
    thread.start()
    try:
        run()
    finally:
        ended.set()
        thread.join()
    return sum(done)


def once_begun(output: Path, rng: random.Random, ended: Ended) -> None:
    """Wait until something is written, and then for a moment."""
    end = time.monotonic() + PATIENCE
    while not any(output.glob("part-*")) and not ended() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.5))


def process_killed(word: str, *, gpus: float = 0, early: bool = False) -> Injection:
    """A process of Ray whose title has the word is killed; Ray goes on.

    Args:
        word: in the title.
        gpus: of an actor.
        early: do not wait for results; few images are read in less time than one takes.
    """

    def inject(cluster: Cluster, inputs: Path, output: Path, rng: random.Random) -> int:
        def kill(ended: Ended) -> bool:
            if not early:
                once_begun(output, rng, ended)
            return kill_one(word, ended)

        return while_running(kill, lambda: on_ray(cluster.address, inputs, output, gpus))

    return inject


def node_killed(cluster: Cluster, inputs: Path, output: Path, rng: random.Random) -> int:
    def kill(ended: Ended) -> bool:
        once_begun(output, rng, ended)
        cluster.kill_node()
        return True

    injected = while_running(kill, lambda: on_ray(cluster.address, inputs, output))
    cluster.add_node()
    return injected


def driver_killed(number: signal.Signals) -> Injection:
    """The process that was started by the user gets a signal; the user starts it again."""

    def inject(cluster: Cluster, inputs: Path, output: Path, rng: random.Random) -> int:
        words = ["--drive", inputs, output, "--address", cluster.address]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.bulk", *map(str, words)],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        once_begun(output, rng, lambda: process.poll() is not None)
        running = process.poll() is None
        process.send_signal(number)
        process.wait()
        on_ray(cluster.address, inputs, output)
        return int(running)

    return inject


def undisturbed(cluster: Cluster, inputs: Path, output: Path, rng: random.Random) -> int:
    """The fault is in the images."""
    on_ray(cluster.address, inputs, output)
    return sum(1 for _ in (output / "rejects.jsonl").open())


def on_ray(address: str, inputs: Path, output: Path, gpus: float = 0) -> None:
    """Predict on the Ray of an address, which on a busy machine may not answer in its own time."""
    engine = RayEngine(address=address, actors=2, gpus_per_actor=gpus)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            bulk(inputs, output, seconds=0.1, engine=engine)
            return
        except InputError as e:
            if "no Ray answers" not in str(e) or time.monotonic() > end:
                raise
        time.sleep(1.0)


# Each with its way to inject it, and what its images are.
FAULTS: dict[str, tuple[Injection, dict[str, int]]] = {
    "an actor is killed": (process_killed("PredictingActor"), {}),
    "an actor on a GPU is killed": (process_killed("PredictingActor", gpus=0.5), {}),
    "a reader is killed": (process_killed("(read_block)", gpus=0.5, early=True), {}),
    "a node is killed": (node_killed, {}),
    "the driver is killed (SIGKILL)": (driver_killed(signal.SIGKILL), {}),
    "the driver is terminated (SIGTERM)": (driver_killed(signal.SIGTERM), {}),
    "images are corrupt": (undisturbed, {"corrupt": 3}),
    "an image ends its process": (undisturbed, {"poison": 1}),
}


def reference(inputs: Path, output: Path, poison: int) -> dict[str, bytes]:
    """The files of an undisturbed run in one process."""
    bulk(inputs, output, dies=False)
    found = contents(output)
    if not poison:
        return found
    # One image is rejected: its partition has another record, and a file of rejects.
    part = f"part-{POISONED // SIZE:06d}"
    del found[f"{part}/record.json"], found[f"{part}/labels/{POISONED:05d}_label.png"]
    boxes = found[f"{part}/boxes.jsonl"].splitlines(keepends=True)
    others = [line for line in boxes if json.loads(line)["image_id"] != POISONED]
    return found | {f"{part}/boxes.jsonl": b"".join(others)}


def try_fault(name: str, cluster: Cluster, folder: Path, seed: int, row: Row) -> None:
    """Inject one fault once."""
    inject, images = FAULTS[name]
    inputs, output = folder / f"in {seed}", folder / f"out {seed}"
    write_inputs(inputs, **images)
    expected = reference(inputs, folder / f"expected {seed}", images.get("poison", 0))
    row.injected += inject(cluster, inputs, output, random.Random(seed))
    count(row, inputs, output, expected)


def table(rows: dict[str, Row]) -> str:
    head = ("fault", "tried", "injected", "ended whole", "lost", "doubled")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in rows.items():
        numbers = (row.tries, row.injected, row.whole, row.lost, row.doubled)
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines) + "\n"


def all_tries(names: list[str], tries: int, folder: Path) -> Iterator[tuple[str, Row]]:
    cluster = Cluster()
    try:
        for name in names:
            row = Row()
            for seed in range(tries):
                try_fault(name, cluster, folder / name.replace(" ", "_"), seed, row)
                print(f"{name}, seed {seed}: {row}", flush=True)
            yield name, row
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=3, help="of each fault; default: 3")
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="FAULT")
    parser.add_argument("--output", metavar="FILE", help="where the table is written, too")
    parser.add_argument("--drive", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        with show_input_errors():
            on_ray(args.address, *args.drive)
        return
    with tempfile.TemporaryDirectory(prefix="topformer_d2_bulk_") as folder:
        rows = dict(all_tries(list(args.only or FAULTS), args.tries, Path(folder)))
    page = f"`{shlex.join(['python', '-m', 'tests.faults.bulk', *sys.argv[1:]])}`\n\n{table(rows)}"
    print(page)
    if args.output:
        Path(args.output).write_text(page, encoding="utf-8")
    wrong = any(r.lost or r.doubled or r.whole < r.tries or not r.injected for r in rows.values())
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    # As a module that other processes can import, which unpickle the stand-in.
    from tests.faults import bulk as module

    module.main()
