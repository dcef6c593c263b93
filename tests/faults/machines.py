"""Kill and stop processes of runs on several machines, and compare how the runs end.

python -m tests.faults.machines --kills 10 --output docs/reliability.md
python -m tests.faults.machines --only "machines: one is killed" --seed 7
"""

from __future__ import annotations

import argparse
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from tests.faults.cluster import STARTED, Cluster, hit, iteration_of, kill_all
from tests.faults.report import MachineRow, write_section

_EQUAL = "the run ends, and its weights are those of an undisturbed one to the bit"
_TESTS = "engine/test_launched.py, engine/test_restarts.py"
# Iterations of a run for each kill; some more are at its end.
_ITERATIONS = 20
# So many, but for the last, may be done between a start of training and the next hit.
_MOST_STEPS = 13
# Without what draws other numbers in other processes.
_STEADY = ["MODEL.TOPFORMER.DROP_PATH_RATE", "0.0", "MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"]
_BN = ["MODEL.TOPFORMER.NORM", "BN"]
# Seconds that a run on a busy machine may take.
_LONG = 420.0
# What PyTorch's launchers end with where a machine is lost in the moment in which they meet.
_MEETING_ERRORS = ("RendezvousClosedError", "DistStoreError", "RendezvousTimeoutError")


class Hits:
    """What was hit in a run: only what was alive.

    Attributes:
        iterations: that the run had reached when it was hit in training.
        at_start: how often processes were hit that did not train yet.
        by_hand: how often the launchers had ended, and were started anew with --resume.
    """

    def __init__(self) -> None:
        self.iterations: list[int] = []
        self.at_start = self.by_hand = 0
        self._starts = 0  # of training, before the last hit

    def note(self, log: str) -> None:
        """Count a hit, at which a run had this log."""
        starts, iteration = log.count(STARTED), iteration_of(log)
        # Processes that still end because of the hit before do not train.
        if iteration is not None and self.is_over(log):
            self.iterations.append(iteration)
        else:
            self.at_start += 1
        self._starts = starts

    def is_over(self, log: str) -> bool:
        """Whether training has started again since the last hit."""
        return log.count(STARTED) > self._starts

    def what_is_wrong(self, log: str) -> str:
        """What the log says against hits in training, or ""."""
        if self.iterations and not self.is_over(log):
            return f"nothing was started again after the hit at iteration {self.iterations[-1]}"
        return ""


def _killed(who: str, seed: int, folder: Path, data: Path, kills: int) -> tuple[str, Hits]:
    """Kill one process, a machine, or the machine of process 0, at random moments of one run."""
    rng, hits = random.Random(f"{who} {seed}"), Hits()
    iterations = _ITERATIONS * (kills + 2)
    expected, until_start = _undisturbed(folder, data, iterations)
    opts, name = [*_BN, "SOLVER.MAX_ITER", str(iterations)], rng.choice(["", f"run-{seed}"])
    with Cluster(folder / f"{who} {seed}", data, nodes="2", opts=opts, name=name) as cluster:
        machines = [cluster.start_machine() for _ in range(2)]
        for number in range(kills):
            # The start of processes takes most of a run, so that each second kill is to hit it.
            if number % 2:
                time.sleep(rng.uniform(0.0, 1.0) * until_start)
            else:
                _await_training(cluster, hits, rng)
            log = cluster.log()
            if (cluster.run / "model_final.pth").exists():
                break  # a machine that came now would wait for another one
            if who == "process":
                workers = [pid for each in machines for pid in cluster.workers(each)]
                if workers and hit(rng.choice(workers)):
                    hits.note(log)
                continue
            first = [each for each in machines if cluster.has_first(each)]
            killed = rng.choice(first if who == "first" and first else machines)
            if kill_all(killed):
                hits.note(log)
            machines.remove(killed)
            machines.append(cluster.start_machine())
        wrong = cluster.wait(_LONG + 30 * kills)
        if wrong and any(error in cluster.output() for error in _MEETING_ERRORS):
            print("the launchers could not meet, and are started anew with --resume", flush=True)
            hits.by_hand += 1
            cluster.resume(2)
            wrong = cluster.wait(_LONG + 30 * kills)
        wrong = wrong or hits.what_is_wrong(cluster.log()) or difference(expected, cluster.run)
        return wrong, hits


def _await_training(cluster: Cluster, hits: Hits, rng: random.Random) -> None:
    """Wait until a run trains again after the last hit, and then for a random moment."""
    steps, end = rng.randrange(_MOST_STEPS), time.monotonic() + _LONG
    first = None
    while time.monotonic() < end and not (cluster.run / "model_final.pth").exists():
        log = cluster.log()
        reached = iteration_of(log) if hits.is_over(log) else None
        first = reached if first is None else first
        if reached is not None and reached >= first + steps:
            break
        time.sleep(0.1)
    time.sleep(rng.random())


def _stopped(seed: int, folder: Path, data: Path, _: int) -> tuple[str, Hits]:
    """Stop one process as the system may, so that it does not answer."""
    rng, hits = random.Random(seed), Hits()
    iterations = 3 * _ITERATIONS
    expected, _ = _undisturbed(folder, data, iterations)
    opts = [*_BN, "SOLVER.MAX_ITER", str(iterations), "SOLVER.PROCESS_TIMEOUT", "15s"]
    with Cluster(folder / f"stop {seed}", data, nodes="2", opts=opts) as cluster:
        for _ in range(2):
            cluster.start_machine()
        _await_training(cluster, hits, rng)
        log = cluster.log()
        workers = [pid for each in cluster.machines for pid in cluster.workers(each)]
        if workers and hit(rng.choice(workers), signal.SIGSTOP):
            hits.note(log)
        wrong = cluster.wait(_LONG)
        if hits.iterations and not wrong and "SOLVER.PROCESS_TIMEOUT" not in cluster.output():
            wrong = "no message names SOLVER.PROCESS_TIMEOUT"
        wrong = wrong or hits.what_is_wrong(cluster.log()) or difference(expected, cluster.run)
        return wrong, hits


def _fewer(seed: int, folder: Path, data: Path, _: int) -> tuple[str, Hits]:
    """Take a machine away for good, and let another one join later: 4 processes, 2 and 4."""
    rng, hits = random.Random(seed), Hits()
    # Differences of rounding grow with each step, and with Adam or long steps fast.
    opts = [*_STEADY, "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "0.001"]
    opts += ["SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "2"]
    with Cluster(folder / f"alone {seed}", data, nodes="1", opts=opts) as cluster:
        cluster.start_machine()
        if wrong := cluster.wait(_LONG):
            return f"the run of two processes: {wrong}", hits
        alone = cluster.run
    with Cluster(folder / f"fewer {seed}", data, nodes="1:2", opts=opts) as cluster:
        machines = [cluster.start_machine() for _ in range(2)]
        if not cluster.wait_for(STARTED, _LONG) or not _await_checkpoint(cluster, 1):
            return "the run has not started", hits
        log = cluster.log()
        if kill_all(rng.choice(machines)):
            hits.note(log)
        before = cluster.output().count(STARTED)
        if not cluster.wait_for(STARTED, _LONG, before + 1):
            return "two processes have not gone on", hits
        cluster.start_machine()
        wrong = cluster.wait(_LONG)
        worlds = [line[-1:] for line in cluster.output().splitlines() if "World size: " in line]
        if not wrong and worlds != ["4", "2", "4"]:
            wrong = f"the numbers of processes were {worlds}"
        return wrong or _distance(alone, cluster.run), hits


def _await_checkpoint(cluster: Cluster, number: int) -> bool:
    saved = cluster.output().count("Saving checkpoint")
    return cluster.wait_for("Saving checkpoint", _LONG, saved + number)


@cache
def _undisturbed(folder: Path, data: Path, iterations: int) -> tuple[Path, float]:
    """The last weights of a run that nothing happens to, and the seconds until it trains."""
    opts = [*_BN, "SOLVER.MAX_ITER", str(iterations)]
    with Cluster(folder / f"undisturbed {iterations}", data, nodes="2", opts=opts) as cluster:
        start = time.monotonic()
        for _ in range(2):
            cluster.start_machine()
        cluster.wait_for(STARTED, _LONG)
        seconds = time.monotonic() - start
        if wrong := cluster.wait(_LONG + 30 * iterations / _ITERATIONS):
            raise RuntimeError(f"the undisturbed run failed: {wrong}\n{cluster.output()}")
        return cluster.run / "model_final.pth", seconds


def difference(expected: Path, run: Path) -> str:
    """What differs in the weights that a run has learnt, or ""."""
    if not (run / "model_final.pth").is_file():
        return "there is no model_final.pth"
    one, other = (torch.load(path)["model"] for path in (expected, run / "model_final.pth"))
    # Each process has its own running statistics without SyncBN, and those of process 0 count.
    weights = [key for key in one if not key.endswith(("running_mean", "running_var"))]
    differing = [key for key in weights if not torch.equal(one[key], other[key])]
    if not differing:
        return ""
    most = max(float((one[key] - other[key]).abs().max()) for key in differing)
    return f"{len(differing)} of {len(weights)} tensors differ, by {most:.3g} at most"


def _distance(expected: Path, run: Path) -> str:
    """What is wrong where a run's weights are not near those that another one has learnt, or "".

    Sums of floats differ in their last bits with the number of processes.
    """
    files = expected / "model_0000001.pth", expected / "model_final.pth", run / "model_final.pth"
    start, end, other = map(_trained, files)
    share = float((other - end).norm() / (end - start).norm())
    return (
        "" if share < 0.15 else f"the weights are {share:.0%} of their way from the expected ones"
    )


def _trained(file: Path) -> torch.Tensor:
    weights = torch.load(file)["model"].items()
    parts = [
        value.flatten().double()
        for key, value in weights
        if value.is_floating_point() and not key.endswith(("running_mean", "running_var"))
    ]
    return torch.cat(parts)


Trial = Callable[[int, Path, Path, int], tuple[str, Hits]]
# (what is tried, what holds) by kind.
KINDS: dict[str, tuple[Trial, str]] = {
    "machines: a process is killed": (lambda *a: _killed("process", *a), _EQUAL),
    "machines: one is killed": (lambda *a: _killed("machine", *a), _EQUAL),
    "machines: that of process 0 is killed": (lambda *a: _killed("first", *a), _EQUAL),
    "machines: a process is stopped": (_stopped, f"a message names the time-out; {_EQUAL}"),
    "machines: 4 processes, 2, and 4": (
        _fewer,
        "the run goes on each time; its weights are near those of two processes",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=1, help="of each kind; default: 1")
    parser.add_argument("--kills", type=int, default=1, help="in each run; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="of the first try; default: 0")
    parser.add_argument("--only", nargs="+", choices=KINDS, help="these kinds; default: all")
    parser.add_argument("--output", metavar="FILE", help="page whose section is written")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="topformer_d2_machines_"))
    rows = []
    try:
        from topformer_d2.data.synthetic import write_synthetic

        data = folder / "data"
        write_synthetic(str(data), num_train=12, num_val=2, size=(64, 80))
        for kind in args.only or KINDS:
            trial, holds = KINDS[kind]
            rows.append(MachineRow(kind, holds, _TESTS))
            for seed in range(args.seed, args.seed + args.tries):
                start = time.monotonic()
                wrong, hits = trial(seed, folder, data, args.kills)
                rows[-1].tries += 1
                rows[-1].iterations += hits.iterations
                rows[-1].at_start += hits.at_start
                rows[-1].by_hand += hits.by_hand
                if wrong:
                    rows[-1].faults.append(wrong)
                    for file in sorted(folder.glob(f"* {seed}/machine *")):
                        print(f"== {file}\n{file.read_text(errors='replace')[-3000:]}")
                told = f"FAULT: {wrong}" if wrong else "passed"
                seconds = f"{time.monotonic() - start:.0f} s"
                where = f"hit at iterations {hits.iterations}, {hits.at_start} times at the start"
                print(f"{kind!r} --seed {seed}: {told} ({seconds}; {where})")
                sys.stdout.flush()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    command = shlex.join(["python", "-m", "tests.faults.machines", *sys.argv[1:]])
    print(write_section(rows, command, args.output))
    sys.exit(1 if any(row.faults for row in rows) else 0)


if __name__ == "__main__":
    main()
