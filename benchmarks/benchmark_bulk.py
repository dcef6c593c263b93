"""Time bulk prediction on Ray beside a plain pool of processes, and watch its memory.

python -m benchmarks.benchmark_bulk --images 1000 --processes 2 --repetitions 3
python -m benchmarks.benchmark_bulk --simulate 1000000 --processes 2 --output memory.csv

The first form predicts JPEGs of 640x480 by the model camvid_t. Pool and Ray do the same work: they
read, predict on one thread a process, and write a label PNG an image. They run in turn, so that
what else the machine does falls on both alike. The rate is counted from the first results to the
last, and the whole time with the start of all processes is given as well. CPU milliseconds an image
are counted from the first results to the last, by what the processes do.

The second form has very many images of 32x32 (hard links to a few files) and a stand-in for a
model. It writes how much memory each part takes over time.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
from tabulate import tabulate

from benchmarks.process_meters import KINDS, CpuMeter, watch
from tests.faults.stand_in import StandIn
from topformer_d2 import Predictor
from topformer_d2.data.images import read_image, write_image
from topformer_d2.data.synthetic import make_sample
from topformer_d2.inference.bulk import RayEngine, list_inputs, predict_in_bulk
from topformer_d2.inference.bulk.partitions import Item
from topformer_d2.inference.bulk.work import Results, Work

MODEL = "camvid_t"
# Images that a process of the pool does in turn, and of a partition.
CHUNK = 50


@dataclass
class Timing:
    """What a run took.

    Attributes:
        rate: images a second, from the first results to the last.
        whole: seconds with the start and end of the processes.
        cpu: CPU seconds of all processes.
        each: CPU milliseconds an image, from the first results to the last, by kind of process.
    """

    rate: float
    whole: float
    cpu: float
    each: dict[str, float]


def write_photos(folder: Path, count: int) -> None:
    """JPEGs of 640x480, of which a few are drawn and the others shifted copies."""
    folder.mkdir()
    drawn = [cv2.GaussianBlur(make_sample(i, 480, 640)[0], (0, 0), 1.2) for i in range(8)]
    for i in range(count):
        image = np.roll(drawn[i % len(drawn)], i, axis=1)
        cv2.imwrite(str(folder / f"{i:06d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


_predictor: Predictor | None = None


def _open() -> None:
    global _predictor
    cv2.setNumThreads(1)
    _predictor = Predictor(MODEL, num_threads=1)


def _predict(paths: Sequence[str], output: str) -> int:
    for path in paths:
        scene = _predictor(read_image(path))
        write_image(f"{output}/{Path(path).stem}_label.png", scene.label)
    return len(paths)


# Called when results come, with how many.
Note = Callable[[int], None]


def by_pool(paths: list[str], output: Path, processes: int, note: Note) -> None:
    """A pool of processes of the standard library."""
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_open) as pool:
        waiting = [pool.submit(_predict, chunk, str(output)) for chunk in chunks]
        for done in as_completed(waiting):
            note(done.result())


def by_ray(paths: list[str], output: Path, processes: int, note: Note) -> None:
    """The same on Ray."""
    engine = RayEngine(actors=processes)

    def noting(partitions: Iterable[Sequence[Item]], work: Work) -> Results:
        for results in engine(partitions, work):
            note(len(results))
            yield results

    predict_in_bulk(
        Predictor(MODEL, num_threads=1),
        paths,
        output,
        identity={"model": MODEL},
        engine=noting,
        partition_size=CHUNK,
    )


def timed(run: Callable[..., None], paths: list[str], root: Path, processes: int) -> Timing:
    """One run into an empty folder, which is removed."""
    output = root / "out"
    output.mkdir()
    times: list[tuple[float, int, dict[int, int]]] = []
    with CpuMeter() as meter:
        start = time.perf_counter()
        run(
            *(paths, output, processes),
            lambda number: times.append((time.perf_counter(), number, meter.mark())),
        )
        whole = time.perf_counter() - start
    written = sum(1 for _ in output.rglob("*_label.png"))
    if written != len(paths):
        raise SystemExit(f"{run.__name__} wrote {written} of {len(paths)} label maps")
    shutil.rmtree(output)
    (first, _, begin), (last, _, end) = times[0], times[-1]
    after = sum(number for _, number, _ in times[1:])
    seconds = meter.seconds(begin, end)
    each = {kind: 1000 * seconds[kind] / max(after, 1) for kind in KINDS}
    rate = after / (last - first) if last > first else float("nan")
    return Timing(rate, whole, sum(meter.seconds().values()), each)


def compare(count: int, processes: int, repetitions: int, root: Path) -> str:
    """The tables of both: how long they took, and what an image cost in which processes."""
    write_photos(root / "in", count)
    paths = list_inputs(root / "in")
    found: dict[str, list[Timing]] = {"pool": [], "ray": []}
    for repetition in range(repetitions):
        for name, run in (("pool", by_pool), ("ray", by_ray)):
            found[name].append(timed(run, paths, root, processes))
            print(f"{name}, {repetition + 1} of {repetitions}: {found[name][-1]}", flush=True)
    rows = [
        [
            name,
            statistics.median(each.rate for each in timings),
            statistics.median(each.whole for each in timings),
            statistics.median(each.cpu for each in timings),
            statistics.median(each.cpu / each.whole / processes for each in timings),
        ]
        for name, timings in found.items()
    ]
    pool, ray = (row[1:] for row in rows)
    ratio = ["ray / pool", *(ours / theirs for theirs, ours in zip(pool, ray, strict=True))]
    headers = ["", "images a second", "whole, s", "CPU, s", "CPU share"]
    costs = [[name, *_costs(timings)] for name, timings in found.items()]
    return "\n\n".join(
        (
            tabulate([*rows, ratio], headers=headers, floatfmt=".3f"),
            tabulate(costs, headers=["CPU ms an image", *KINDS, "all"], floatfmt=".2f"),
        )
    )


def _costs(timings: Sequence[Timing]) -> list[float]:
    """Medians of each kind of process, and of their sum."""
    medians = [statistics.median(timing.each[kind] for timing in timings) for kind in KINDS]
    return [*medians, statistics.median(sum(timing.each.values()) for timing in timings)]


def simulate(count: int, processes: int, file: TextIO, seconds: float, root: Path) -> str:
    """Very many small images; how many there were a second."""
    links = 20000  # a file of some file systems has 65,000 at most
    (root / "in").mkdir()
    for i in range(count):
        if i % links == 0:
            source = root / f"{i}.png"
            pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(source), pixels)
        os.link(source, root / "in" / f"{i:08d}.png")
    done, stopped = [0], threading.Event()
    engine = RayEngine(actors=processes)

    def counting(partitions: Iterable[Sequence[Item]], work: Work) -> Results:
        for results in engine(partitions, work):
            done[0] += len(results)
            yield results

    watcher = threading.Thread(target=watch, args=(lambda: done[0], file, stopped, seconds))
    watcher.start()
    start = time.monotonic()
    try:
        result = predict_in_bulk(
            StandIn(),
            list_inputs(root / "in"),
            root / "out",
            identity={"stand-in": 1},
            engine=counting,
            label_format="rle",
        )
    finally:
        stopped.set()
        watcher.join()
    took = time.monotonic() - start
    return f"{result} in {took:.0f} s, {result.inputs / took:.0f} images a second"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2, help="of the pool, and actors of Ray")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--simulate", type=int, metavar="IMAGES", help="the second form")
    parser.add_argument("--every", type=float, default=5, help="seconds between lines of memory")
    parser.add_argument("--output", metavar="FILE", help="of the memory's lines; default: stdout")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="topformer_d2_bulk_") as folder:
        if args.simulate is None:
            print(compare(args.images, args.processes, args.repetitions, Path(folder)))
            return
        with open(args.output, "w") if args.output else contextlib.nullcontext(sys.stdout) as file:
            print(simulate(args.simulate, args.processes, file, args.every, Path(folder)))


if __name__ == "__main__":
    # As a module that other processes can import.
    from benchmarks import benchmark_bulk as module

    module.main()
