"""The OpenVINO format: writing files, and running them (and ONNX files) on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...errors import InputError
from ...files import folder_beside, read_bytes
from ..checksum import CHECKSUM_KEY, PLACEHOLDER, check_seal, seal
from ..explanation import as_text, explain, metadata_json
from ..export_info import METADATA_KEY, ExportInfo
from ..graph import Tensor, check_answer, check_graph
from .base import ExportFormat, cannot_run, check_file, check_has_checksum, import_extra
from .onnx import read_onnx
from .tracing import EXPORTER, trace

_MOST_BYTES = 1 << 26  # more than the .xml of any network here
_MOST_WEIGHT_BYTES = 1 << 31
_OPENVINO_TYPES = {"f32": "float", "u8": "uint8", "i32": "int32", "i64": "int64"}


def write_openvino(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path` (.xml) and, beside it, its weights (.bin), with `info` inside.

    By way of ONNX, so that both formats hold one graph.
    """
    openvino = import_extra("openvino")
    with folder_beside(path) as folder:
        traced = folder / "traced.onnx"
        traced.write_bytes(trace(network, info))
        model = openvino.convert_model(traced)
        model.set_rt_info(metadata_json(info), METADATA_KEY)
        model.set_rt_info(PLACEHOLDER, CHECKSUM_KEY)
        model.set_rt_info(as_text(explain(info)), f"{METADATA_KEY}_explanation")
        model.set_friendly_name(METADATA_KEY)
        openvino.save_model(model, path, compress_to_fp16=False)
        seal(path, path.with_suffix(".bin"))


class OpenVinoSession:
    """An .xml or .onnx file in OpenVINO, used as OnnxRuntimeSession is."""

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them."""
        openvino = import_extra("openvino")
        self._path = str(path)
        is_onnx = Path(path).suffix.lower() == ".onnx"
        weights = None
        if is_onnx:
            self.export, content = read_onnx(self._path)
        else:
            content, weights, has_checksum = _read_xml(self._path)
        core = openvino.Core()
        # Its default is bfloat16 where the processor has it. It keeps the operators that it has
        # prepared for each size of image; by default so many that varying sizes take gigabytes.
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "CPU_RUNTIME_CACHE_CAPACITY": 100,
        }
        if num_threads:
            config["INFERENCE_NUM_THREADS"] = num_threads
        try:
            # What was checked: the files may be others by now.
            model = core.read_model(content, weights)
            if not is_onnx:
                self.export = ExportInfo.from_openvino(model, self._path)
                check_has_checksum(self.export, has_checksum, self._path)
            inputs, outputs = (
                [_openvino_tensor(each) for each in f] for f in (model.inputs, model.outputs)
            )
            check_graph(self.export, inputs, outputs, self._path)
            self.channels_last = not self.export.with_preprocessing
            if self.channels_last:
                layouts = openvino.preprocess.PrePostProcessor(model)
                layouts.input().tensor().set_layout(openvino.Layout("NHWC"))
                layouts.input().model().set_layout(openvino.Layout("NCHW"))
                model = layouts.build()
            self._compiled = core.compile_model(model, "CPU", config)
        except InputError:
            raise
        except Exception as e:  # of the library's, and of what it makes of the XML
            fix = "" if is_onnx else ": copy both files, .xml and .bin, or export it again"
            raise InputError(f"{path} is not a model that OpenVINO can run{fix}: {e}") from e
        # A compiled model runs for one caller at a time.
        self._lock = threading.Lock()

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        given = x
        if self.channels_last and x.ndim == 4:
            given = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        # Its outputs lie in memory that the next run writes over.
        with self._lock:
            try:
                found = self._compiled(given, share_inputs=True)
            except (RuntimeError, ValueError, TypeError) as e:
                raise cannot_run(self._path, x, e) from e
            outputs = {name: found[i].copy() for i, name in enumerate(self.export.outputs)}
        check_answer(self.export, outputs, self._path)
        return outputs


def _read_xml(path: str) -> tuple[bytes, bytes, bool]:
    """An .xml file, its .bin, and whether they have a checksum; an InputError if it differs."""
    check_file(path)
    weights = Path(path).with_suffix(".bin")
    if not weights.exists():
        raise InputError(f"{path} has no {weights.name} beside it: copy both files")
    content = read_bytes(path, most=_MOST_BYTES)
    if f"<{METADATA_KEY} ".encode() not in content:
        raise InputError(
            f"{path} is not a model of `topformer export`, or was cut: copy both files, .xml "
            "and .bin, or export it again"
        )
    values = read_bytes(str(weights), most=_MOST_WEIGHT_BYTES)
    return content, values, check_seal(content, path, values)


def _openvino_tensor(tensor: Any) -> Tensor:
    shape = tensor.get_partial_shape()
    sides = None
    if shape.rank.is_static:
        sides = tuple(n.get_length() if n.is_static else None for n in shape)
    name = tensor.get_any_name() if tensor.get_names() else ""
    return Tensor(name, _OPENVINO_TYPES.get(tensor.get_element_type().to_string(), "other"), sides)


FORMAT = ExportFormat(
    name="openvino",
    extension=".xml",
    beside=(".bin",),
    write=write_openvino,
    runtime="openvino",
    session=OpenVinoSession,
    reads=(".xml", ".onnx"),
    libraries=("onnx", "openvino"),
    exporter=EXPORTER,
)
