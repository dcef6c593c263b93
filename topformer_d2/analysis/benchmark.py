"""Networks and whole ways from image to label map, timed side by side."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from tabulate import tabulate

from .chart import render
from .latency import time_alternately


@dataclass
class Entry:
    """What is timed.

    Attributes:
        model, backend: names for the table.
        gmacs: of the network, in 1e9 multiply-accumulates.
        network: from the normalised image to raw outputs; None = not timed.
        whole: from the decoded image to label map or boxes.
    """

    model: str
    backend: str
    gmacs: float | None
    network: Callable[[], object] | None
    whole: Callable[[], object]


@dataclass
class Result:
    """Medians in milliseconds, and the whole way's median ratio to the first entry's, run by run.

    Attributes:
        speedup: how many times as long the first entry takes.
    """

    model: str
    backend: str
    gmacs: float | None
    network_ms: float | None
    whole_ms: float
    speedup: float


def run_benchmark(entries: Sequence[Entry], repetitions: int) -> list[Result]:
    """Time all entries alternately; the first is what the others are compared with."""
    calls = [entry.whole for entry in entries] + [e.network for e in entries if e.network]
    times = time_alternately(calls, repetitions)
    whole, networks = times[:, : len(entries)], iter(times[:, len(entries) :].T)
    return [
        Result(
            entry.model,
            entry.backend,
            entry.gmacs,
            float(np.median(next(networks))) if entry.network else None,
            float(np.median(whole[:, i])),
            float(np.median(whole[:, 0] / whole[:, i])),
        )
        for i, entry in enumerate(entries)
    ]


def format_results(results: Sequence[Result]) -> str:
    """A table of run_benchmark's results."""
    rows = [
        [
            r.model,
            r.backend,
            "" if r.gmacs is None else f"{r.gmacs:.2f}",
            "" if r.network_ms is None else f"{r.network_ms:.1f}",
            f"{r.whole_ms:.1f}",
            "" if r.network_ms is None else f"{r.whole_ms / r.network_ms:.2f}",
            f"{r.speedup:.1f}x",
        ]
        for r in results
    ]
    headers = ["model", "backend", "GMACs", "network, ms", "whole way, ms", "whole / network"]
    return tabulate(
        rows,
        [*headers, "faster than the first"],
        colalign=("left", "left", *("right",) * 5),
        disable_numparse=True,
        tablefmt="github",
    )


def as_records(results: Sequence[Result], **settings) -> list[dict]:
    """For JSON: a dict for each result, with what all were measured under."""
    return [{**asdict(result), **settings} for result in results]


def describe_machine() -> str:
    """The processor's name and PyTorch's version."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            name = next(line.split(":", 1)[1].strip() for line in f if "model name" in line)
    except (OSError, StopIteration):
        pass
    return f"{name}, {platform.system()}, PyTorch {torch.__version__}"


def draw_latency(results: Sequence[Result], title: str) -> np.ndarray:
    """Latency of the networks against their GMACs: (H, W, 3) uint8 RGB."""
    figure = Figure(figsize=(7.5, 4.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    timed = [r for r in results if r.network_ms and r.gmacs]
    for backend, marker in zip(dict.fromkeys(r.backend for r in timed), "sD^ov", strict=False):
        points = [(r.gmacs, r.network_ms) for r in timed if r.backend == backend]
        axes.scatter(*zip(*points, strict=True), marker=marker, label=backend)
    # Each model is named once, at its fastest.
    fastest = {r.model: r for r in sorted(timed, key=lambda r: -r.network_ms)}
    for name, point in fastest.items():
        axes.annotate(
            name,
            (point.gmacs, point.network_ms),
            xytext=(6, -10),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set(xscale="log", yscale="log", xlabel="GMACs", ylabel="network, ms", title=title)
    axes.margins(x=0.4)  # for the names
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if str(value)[0] in "25" else "")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    return render(figure)
