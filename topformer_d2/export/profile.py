"""Where the time of an exported network goes, by ONNX Runtime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ..errors import InputError
from ..inference.formats import import_extra
from ..inference.formats.onnx import OnnxRuntimeSession

_WARM_UP = 3
_KERNEL = "_kernel_time"
# What ONNX Runtime names the layouts and the fusions of a node by.
_NAME_ENDINGS = ("_output_0_nchwc", "_nchwc", "_token")


@dataclass(frozen=True)
class NodeTime:
    """Of a node of the graph as ONNX Runtime runs it.

    Attributes:
        name: of the node; joined ones have the name of the last.
        operator: ONNX Runtime's.
        shape: of its first output.
        milliseconds: 10% quantile over the runs, for what else the machine does only adds to it.
        gflops: multiply-adds of a convolution, two operations each, in 1e9 a second; None = other.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    milliseconds: float
    gflops: float | None


def profile_onnx(
    path: str, size: tuple[int, int], *, repetitions: int = 50, num_threads: int = 1
) -> tuple[list[NodeTime], tuple[int, ...]]:
    """The nodes of an .onnx file by their time on noise, slowest first, and the input's shape.

    Args:
        path: an .onnx file of `topformer export`.
        size: (height, width) of the input, where the file leaves them free.

    Raises:
        InputError: the file cannot be read, or has preprocessing inside.
    """
    onnxruntime = import_extra("onnxruntime")
    if OnnxRuntimeSession(path, num_threads).export.with_preprocessing:
        raise InputError(
            f"{path} has the preprocessing inside: export it without `with_preprocessing` to "
            "profile it"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        free = (1, 3, *size)
        shape = tuple(
            n if isinstance(n, int) else m for n, m in zip(source.shape, free, strict=True)
        )
        images = np.random.default_rng(0).standard_normal(shape, np.float32)
        for _ in range(repetitions + _WARM_UP):
            session.run(None, {source.name: images})
        events = json.loads(Path(session.end_profiling()).read_text())
    return sorted(_node_times(events), key=lambda node: -node.milliseconds), shape


def _node_times(events: Sequence[dict]) -> list[NodeTime]:
    runs = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            runs[event["name"], event["args"]["node_index"]].append(event)
    # A node of a branch may not have run each time.
    return [
        _node_time(name, found[_WARM_UP:])
        for (name, _), found in runs.items()
        if len(found) > _WARM_UP
    ]


def _node_time(name: str, events: Sequence[dict]) -> NodeTime:
    args = events[0]["args"]
    inputs, outputs = (
        [tuple(next(iter(tensor.values()))) for tensor in args[key]]
        for key in ("input_type_shape", "output_type_shape")
    )
    milliseconds = float(np.quantile([event["dur"] for event in events], 0.1)) / 1e3
    name = name.removesuffix(_KERNEL)
    for ending in _NAME_ENDINGS:
        name = name.removesuffix(ending)
    operator, gflops = args["op_name"], None
    if operator in ("Conv", "FusedConv") and milliseconds:
        # The weights are (out, in of a group, kh, kw); the output has what `out` was padded to.
        gflops = 2 * np.prod(inputs[1]) * np.prod(outputs[0][2:]) * outputs[0][0]
        gflops = float(gflops) / milliseconds / 1e6
    return NodeTime(name, operator, outputs[0] if outputs else (), milliseconds, gflops)


def format_profile(nodes: Sequence[NodeTime], most: int) -> str:
    """Two tables: time by operator, and the slowest nodes, `most` of them.

    "all" is a sum of quantiles: a little less than a run takes.
    """
    total = sum(node.milliseconds for node in nodes)
    by_operator = defaultdict(list)
    for node in nodes:
        by_operator[node.operator].append(node.milliseconds)
    rows = sorted(by_operator.items(), key=lambda item: -sum(item[1]))
    operators = tabulate(
        [
            [name, len(ms), f"{sum(ms):.2f}", f"{100 * sum(ms) / total:.1f}%"]
            for name, ms in [*rows, ("all", [node.milliseconds for node in nodes])]
        ],
        ["operator", "nodes", "ms", "share"],
        colalign=("left", "right", "right", "right"),
        tablefmt="github",
        disable_numparse=True,
    )
    layers = tabulate(
        [
            [
                node.name,
                node.operator,
                "x".join(map(str, node.shape)),
                f"{node.milliseconds:.2f}",
                "" if node.gflops is None else f"{node.gflops:.0f}",
            ]
            for node in nodes[:most]
        ],
        ["layer", "operator", "output", "ms", "GFLOP/s"],
        colalign=("left", "left", "left", "right", "right"),
        tablefmt="github",
        disable_numparse=True,
    )
    return f"{operators}\n\n{layers}"
