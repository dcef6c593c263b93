"""The MNN format: writing files by MNN's converter, and running them on the CPU."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from torch import nn

from ...errors import InputError
from ...files import folder_beside
from ..allocator import keep_freed_memory
from ..export_info import ExportInfo
from ..graph import check_answer
from .base import ExportFormat, cannot_run, check_float_input, import_extra
from .converters import run_converter
from .description_file import read_description, write_description
from .quiet import quietly
from .tracing import EXPORTER, trace

# MNN's own program of this name reports figures on each model through a logger; this does not.
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"

# BackendConfig::Precision_High. The default is float16 where the processor has it. By its name MNN
# prints a line.
_PRECISION = 1
# Of the weights, which have a scale and an offset for each output channel in 8 bits. (MNN's
# calibrated int8, of activations too, lost more than a point of mIoU: docs/formats.md.)
_ROUNDING = {"float32": [], "float16": ["--fp16"], "int8": ["--weightQuantBits", "8"]}


def write_mnn(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path` (.mnn), and its description (.json).

    By way of ONNX, so that both formats hold one graph.
    """
    with folder_beside(path) as folder:
        (folder / "traced.onnx").write_bytes(trace(network, info))
        arguments = ["-f", "ONNX", "--modelFile", "traced.onnx", "--MNNModel", "converted.mnn"]
        arguments += _ROUNDING[info.precision]
        command = [sys.executable, "-c", _CONVERT, *arguments, "--bizCode", "topformer_d2"]
        run_converter(command, folder, "converted.mnn").replace(path)
    write_description(info, path)


class MnnSession:
    """An .mnn file in MNN, used as OnnxRuntimeSession is. It computes in float32."""

    channels_last = False

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them."""
        mnn = import_extra("MNN", FORMAT.extra)
        keep_freed_memory()  # MNN takes memory for the input anew in each call
        self._path, self._expr = str(path), mnn.expr
        self.export, content = read_description(path)
        try:
            # Of a copy that nobody else writes: MNN's Python opens modules by their path alone. So
            # it finds no file of further weights beside it either.
            with tempfile.TemporaryDirectory(prefix="topformer_d2-") as folder, quietly("MNN"):
                copy = Path(folder) / "model.mnn"
                copy.write_bytes(content[FORMAT.extension])
                # The number of threads as an argument of load_module_from_file has no effect.
                runtime = mnn.nn.create_runtime_manager(
                    ({"precision": _PRECISION, "numThread": num_threads or os.cpu_count() or 1},)
                )
                self._module = mnn.nn.load_module_from_file(
                    str(copy),
                    [self.export.input_name],
                    list(self.export.outputs),
                    runtime_manager=runtime,
                )
        except OSError:  # as of a full disk
            raise
        except Exception as e:  # its exceptions have no base of their own
            raise InputError(f"{path} is not a model that MNN can run: {e}; export it again") from e
        # A module runs for one caller at a time.
        self._lock = threading.Lock()

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        check_float_input(self.export, x, self._path)
        expr = self._expr
        with self._lock:
            planes = np.ascontiguousarray(x)
            image = expr.const(planes, list(x.shape), expr.data_format.NCHW, expr.float)
            try:
                found = self._module.forward([image])
                outputs = {
                    name: np.array(expr.convert(values, expr.data_format.NCHW).read())
                    for name, values in zip(self.export.outputs, found, strict=True)
                }
            except (RuntimeError, ValueError, TypeError) as e:
                raise cannot_run(self._path, x, e) from e
        check_answer(self.export, outputs, self._path)
        return outputs


FORMAT = ExportFormat(
    name="mnn",
    extension=".mnn",
    beside=(".json",),
    write=write_mnn,
    runtime="mnn",
    session=MnnSession,
    reads=(".mnn",),
    libraries=("onnx", "MNN"),
    exporter=f"MNN's converter, from {EXPORTER}",
    extra="mnn",
    precisions=("float32", "float16", "int8"),
    rounds_to_int8=True,
    gives_boxes=False,
    gives_labels=False,
    takes_images=False,
)
