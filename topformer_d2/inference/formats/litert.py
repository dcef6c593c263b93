"""The LiteRT (TensorFlow Lite) format: writing files by litert-torch, and running them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import InputError
from ..export_info import ExportInfo
from ..graph import Tensor, check_answer, check_counts, check_graph
from ..optimization import fold_norms
from .base import BY_QUANTIZE, ExportFormat, cannot_run, check_float_input, import_extra
from .description_file import read_description, write_description
from .pooling import ExactPooling
from .quiet import quietly
from .tracing import example_input

SIGNATURE = "serving_default"  # of the one function in a file that litert-torch writes
_KINDS = {np.float32: "float", np.uint8: "uint8", np.int32: "int32", np.int64: "int64"}


def write_litert(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path` (.tflite), and its description (.json)."""
    converter = import_extra("litert_torch", FORMAT.extra)
    with quietly("litert-torch"):
        fold_norms(network)
        with torch.no_grad(), ExactPooling(is_static=True):
            converter.convert(network, (example_input(info),)).export(str(path))
    if info.precision == "float16":
        _round_weights(path)
    write_description(info, path)


def _round_weights(path: Path) -> None:
    """Have a file's weights in float16; a runtime computes with them in float32."""
    types = import_extra("ai_edge_quantizer.qtyping", FORMAT.extra)
    quantizer = import_extra("ai_edge_quantizer.quantizer", FORMAT.extra)
    half = types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT)
    with quietly("ai-edge-quantizer"):
        work = quantizer.Quantizer(str(path))
        work.update_quantization_recipe(
            ".*",
            types.TFLOperationName.ALL_SUPPORTED,
            types.OpQuantizationConfig(
                weight_tensor_config=half, compute_precision=types.ComputePrecision.FLOAT
            ),
            "float_casting",
        )
        path.write_bytes(work.quantize(enable_progress_report=False).quantized_model)


class LiteRtSession:
    """A .tflite file in LiteRT's interpreter, with XNNPACK, used as OnnxRuntimeSession is."""

    channels_last = False

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them."""
        self._path = str(path)
        library = import_extra("ai_edge_litert.interpreter", FORMAT.extra)
        self.export, content = read_description(path)
        names = self.export.outputs
        try:
            with quietly("LiteRT"):
                self._interpreter = library.Interpreter(
                    model_content=content[FORMAT.extension],
                    num_threads=num_threads or os.cpu_count() or 1,
                )
                self._interpreter.allocate_tensors()
                # Its outputs have names of their own, output_0 and so on, by which they are found
                # in the order in which the network gives them.
                self._runner = self._interpreter.get_signature_runner(SIGNATURE)
            inputs = self._runner.get_input_details()
            outputs = self._runner.get_output_details()
            self._input = next(iter(inputs))
            given = [outputs[key] for key in map(_output_name, range(len(outputs)))]
        except Exception as e:  # its exceptions have no base of their own
            raise InputError(
                f"{path} is not a model that LiteRT can run: {e}; export it again"
            ) from e
        check_counts(self.export, len(inputs), len(given), self._path)
        check_graph(
            self.export,
            [_tensor(self.export.input_name, inputs[self._input])],
            [_tensor(name, each) for name, each in zip(names, given, strict=True)],
            self._path,
        )
        # An interpreter runs for one caller at a time.
        self._lock = threading.Lock()

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        check_float_input(self.export, x, self._path)
        with self._lock:
            try:
                found = self._runner(**{self._input: np.ascontiguousarray(x)})
            except (RuntimeError, ValueError, TypeError) as e:
                raise cannot_run(self._path, x, e) from e
        outputs = {
            name: np.array(found[_output_name(i)]) for i, name in enumerate(self.export.outputs)
        }
        check_answer(self.export, outputs, self._path)
        return outputs


def _output_name(i: int) -> str:
    return f"output_{i}"


def _tensor(name: str, details: Any) -> Tensor:
    return Tensor(name, _KINDS.get(details["dtype"], "other"), tuple(map(int, details["shape"])))


FORMAT = ExportFormat(
    name="litert",
    extension=".tflite",
    beside=(".json",),
    write=write_litert,
    runtime="litert",
    session=LiteRtSession,
    reads=(".tflite",),
    libraries=("litert_torch", "ai_edge_litert"),
    exporter="torch.export, litert-torch",
    extra="litert",
    precisions=("float32", "float16"),
    not_written=BY_QUANTIZE,
    fixed_size=True,
    gives_boxes=False,
    gives_labels=False,
    takes_images=False,
)
