"""Break the toolkit on purpose for some minutes, and write what came of it as a table.

python -m tests.faults --minutes 10 --output docs/reliability.md
python -m tests.faults --only "hostile: image" --seed 7 --tries 1
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

# Before PyTorch is loaded: each process has one core, and threads do not survive a fork.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"
# Tries of a kind in a round.
_WEIGHTS = {"kill": 1, "full disk": 1, "hostile": 4}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="default: 10")
    parser.add_argument("--seed", type=int, default=0, help="of the first try; default: 0")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="these kinds; default: all")
    parser.add_argument("--tries", type=int, help="rounds, at most; default: what the time allows")
    parser.add_argument("--output", metavar="FILE", help="page to write, such as a .md")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="topformer_d2_faults_"))
    os.environ["DETECTRON2_DATASETS"] = str(folder / "datasets")
    from tests.faults.plan import rows
    from tests.faults.report import as_page, section_of

    found = rows()
    unknown = [kind for kind in args.only or () if kind not in found]
    if unknown:
        parser.error(f"unknown kind {unknown}; known: {', '.join(map(repr, found))}")
    kinds = args.only or list(found)
    try:
        for kind, seed, wrong in _try_all(kinds, folder, args):
            found[kind].tries += 1
            if wrong:
                found[kind].faults.append(wrong)
                print(f"FAULT {kind!r} --seed {seed}: {wrong}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shown = [found[kind] for kind in kinds]
    page = as_page(shown, shlex.join(["python", "-m", "tests.faults", *sys.argv[1:]]))
    print(page)
    if args.output:
        file = Path(args.output)
        kept = section_of(file.read_text(encoding="utf-8")) if file.exists() else ""
        file.write_text(page + kept, encoding="utf-8")
    sys.exit(1 if any(row.faults for row in shown) else 0)


def _try_all(
    kinds: Sequence[str], folder: Path, args: argparse.Namespace
) -> Iterator[tuple[str, int, str]]:
    """(kind, seed, what is wrong or "") of each try, by one process for each core."""
    import torch

    from tests.faults.world import World, load_libraries

    torch.set_num_threads(1)
    world = World(folder)
    load_libraries()
    end = time.monotonic() + 60 * args.minutes
    read, write = os.pipe()
    workers = os.cpu_count() or 1
    for worker in range(workers):
        if not os.fork():
            _work(kinds, world, range(args.seed + worker, sys.maxsize, workers), args, end, write)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as lines:
        for line in lines:
            yield tuple(json.loads(line))


def _work(
    kinds: Sequence[str],
    world,
    seeds: Sequence[int],
    args: argparse.Namespace,
    end: float,
    pipe: int,
) -> None:
    """One process of those that try; never returns."""
    from tests.faults.plan import trials

    trial_of = trials()
    rounds = 0
    try:
        while time.monotonic() < end and rounds != args.tries:
            for kind in kinds:
                weight = 1 if args.only else _WEIGHTS[kind.partition(":")[0]]
                for n in range(weight):
                    if time.monotonic() >= end:
                        break
                    seed = seeds[rounds * weight + n]
                    for wrong in trial_of[kind](seed, world):
                        # A line below the size of a pipe's buffer is written whole.
                        line = json.dumps([kind, seed, wrong[:1000]])
                        os.write(pipe, f"{line}\n".encode())
            rounds += 1
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
