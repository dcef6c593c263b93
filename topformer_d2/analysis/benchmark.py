"""Timing side by side: the networks alone, and everything from the image to the label map."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from tabulate import tabulate

from .chart import COLORS, render
from .latency import time_alternately


@dataclass
class Entry:
    """One row of the benchmark: what is timed, under which name.

    Attributes:
        model, backend: names for the table.
        gmacs: of the network, in 1e9 multiply-accumulates; None = not counted.
        network: from the normalised image to raw outputs; None = not timed.
        whole: from the decoded image to label map or boxes.
        is_reference: the model's other networks are compared with this one.
    """

    model: str
    backend: str
    gmacs: float | None
    network: Callable[[], object] | None
    whole: Callable[[], object]
    is_reference: bool = False


@dataclass
class Result:
    """Medians over the repetitions, in milliseconds, with quartiles.

    Attributes:
        network_ratio: median of the network's time as a share of the reference's in the same
            repetition; None where the model has no reference.
        speedup: median of how many times as long the first entry's whole way takes in the same
            repetition.
    """

    model: str
    backend: str
    gmacs: float | None
    network_ms: float | None
    network_quartiles: tuple[float, float] | None
    network_ratio: float | None
    whole_ms: float
    whole_quartiles: tuple[float, float]
    speedup: float


def run_benchmark(entries: Sequence[Entry], repetitions: int) -> list[Result]:
    """Time all entries alternately; the first is what the others are compared with."""
    calls = [entry.whole for entry in entries] + [e.network for e in entries if e.network]
    times = time_alternately(calls, repetitions).T
    columns = iter(times[len(entries) :])
    networks = [next(columns) if entry.network else None for entry in entries]
    references = {
        entry.model: network
        for entry, network in zip(entries, networks, strict=True)
        if entry.is_reference
    }
    results = []
    for entry, network, whole in zip(entries, networks, times[: len(entries)], strict=True):
        network_ms = network_quartiles = ratio = None
        if network is not None:
            network_ms, network_quartiles = _summarize(network)
            if entry.model in references:
                ratio = float(np.median(network / references[entry.model]))
        speedup = float(np.median(times[0] / whole))
        results.append(
            Result(
                *(entry.model, entry.backend, entry.gmacs, network_ms, network_quartiles, ratio),
                *(*_summarize(whole), speedup),
            )
        )
    return results


def _summarize(times: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Median and quartiles."""
    lower, median, upper = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return median, (lower, upper)


def format_results(results: Sequence[Result]) -> str:
    """A table of run_benchmark's results; what none of them has is left out."""
    columns = {
        "model": [r.model for r in results],
        "backend": [r.backend for r in results],
        "GMACs": [_format(r.gmacs, 2) for r in results],
        "network, ms": [_format(r.network_ms, 1) for r in results],
        "network / reference": [_format(r.network_ratio, 2) for r in results],
        "whole way, ms": [_format(r.whole_ms, 1) for r in results],
        "whole / network": [
            _format(r.network_ms and r.whole_ms / r.network_ms, 2) for r in results
        ],
        "faster than the first": [f"{r.speedup:.1f}x" for r in results],
    }
    columns = {name: column for name, column in columns.items() if any(column)}
    return tabulate(
        columns,
        headers="keys",
        colalign=["left" if name in ("model", "backend") else "right" for name in columns],
        disable_numparse=True,
        tablefmt="github",
    )


def _format(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def as_records(results: Sequence[Result]) -> list[dict]:
    """The results as dicts, for JSON."""
    return [asdict(result) for result in results]


def describe_machine() -> str:
    """Processor, cores, and the versions of PyTorch and of the runtimes that were loaded."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            name = next(line.split(":", 1)[1].strip() for line in f if "model name" in line)
    except (OSError, StopIteration):
        pass
    libraries = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    libraries |= {"ncnn": "ncnn", "MNN": "MNN", "ai_edge_litert": "LiteRT"}
    libraries |= {"executorch": "ExecuTorch"}
    versions = [
        f"{title} {_version(module)}"
        for module, title in libraries.items()
        if module in sys.modules
    ]
    return ", ".join([name, f"{os.cpu_count()} cores", platform.system(), *versions])


def _version(module: str) -> str:
    """Of a module that was loaded; some have it in the package's metadata alone."""
    found = getattr(sys.modules[module], "__version__", None) or metadata.version(module)
    return found.partition("-")[0]


def draw_latency(results: Sequence[Result], title: str) -> np.ndarray:
    """Latency of the networks against their GMACs: (H, W, 3) uint8 RGB.

    A colour for each model, whose points a line joins, and a marker for each backend.
    """
    figure = Figure(figsize=(8.5, 4.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    timed = [r for r in results if r.network_ms and r.gmacs]
    markers = dict(zip(dict.fromkeys(r.backend for r in timed), "sD^ovP*X", strict=False))
    models = dict.fromkeys(r.model for r in sorted(timed, key=lambda r: r.gmacs))
    for i, model in enumerate(models):
        own, color = [r for r in timed if r.model == model], COLORS[i % len(COLORS)]
        x, y = [r.gmacs for r in own], [r.network_ms for r in own]
        axes.plot(x, y, color=color, linewidth=1, label=model)
        for r in own:
            shape: dict[str, Any] = {
                "marker": markers[r.backend],
                "markersize": 8,
                "markeredgecolor": "white",
            }
            axes.plot(r.gmacs, r.network_ms, color=color, **shape)
    # Room around the points, and on each axis at least one of the numbers below.
    x, y = [r.gmacs for r in timed], [r.network_ms for r in timed]
    axes.set(xscale="log", xlim=(min(x) / 1.6, max(x) * 1.6), xlabel="GMACs", title=title)
    axes.set(yscale="log", ylim=(min(y) / 1.6, max(y) * 1.6), ylabel="network, ms")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.3)
    shapes = [Line2D([], [], marker=m, color="0.3", ls="", label=b) for b, m in markers.items()]
    axes.legend(handles=shapes, frameon=False, loc="upper left")
    lines = [line for line in axes.lines if line.get_label() in models]
    figure.legend(handles=lines, frameon=False, loc="outside right upper")
    return render(figure)
