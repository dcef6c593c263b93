"""The ONNX format: writing files, and running them in ONNX Runtime on the CPU."""

from __future__ import annotations

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
from ..onnx_file import read_metadata
from .base import (
    BY_QUANTIZE,
    ExportFormat,
    cannot_run,
    check_file,
    check_has_checksum,
    import_extra,
)
from .tracing import EXPORTER, trace

_MOST_BYTES = 1 << 31  # of a file: protobuf's limit


def write_onnx(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path`, with `info` inside.

    What is constant is folded before, by ONNX Runtime's basic level, which keeps to ONNX's own
    operators: a reader sees the network and not the arithmetic of its sizes.
    """
    onnx, onnxruntime = import_extra("onnx"), import_extra("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with folder_beside(path) as folder:
        folded = folder / "folded.onnx"
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(
            trace(network, info), options, providers=["CPUExecutionProvider"]
        )
        model = onnx.load(folded)
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    save_described(model, metadata_json(info), path)


def save_described(model: Any, description: str, path: Path) -> None:
    """Write an ONNX model to `path` with an ExportInfo's JSON inside, its sentences and a checksum.

    Args:
        model: an onnx.ModelProto; it is changed.
        description: of the model.
        path: of the file.
    """
    from ... import __version__

    onnx = import_extra("onnx")
    properties = {METADATA_KEY: description, CHECKSUM_KEY: PLACEHOLDER}
    onnx.helper.set_model_props(model, properties)
    explanation = explain(ExportInfo.from_json(description, str(path)))
    model.producer_name, model.producer_version = METADATA_KEY, __version__
    model.domain = METADATA_KEY
    model.doc_string = model.graph.doc_string = as_text(explanation)
    for tensor in model.graph.input:
        tensor.doc_string = explanation["input"]
    for tensor in model.graph.output:
        tensor.doc_string = explanation["outputs"][tensor.name]
    onnx.checker.check_model(model)
    onnx.save(model, path)
    seal(path)


class OnnxRuntimeSession:
    """An ONNX file in ONNX Runtime.

    Attributes:
        export: what the file says of itself.
        channels_last: it takes images fastest where their channels lie side by side.
    """

    channels_last = False

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """
        Args:
            path: .onnx file of `topformer export`.
            num_threads: of an operator; None = one for each core.

        Raises:
            InputError: the file cannot be read, is damaged, takes weights from other files, does
                not describe its own graph, or the runtime is not installed.
        """
        onnxruntime = import_extra("onnxruntime")
        self._path = str(path)
        self.export, content = read_onnx(self._path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # its exceptions have no base of their own
            raise InputError(f"{path} is not an ONNX file that ONNX Runtime can run: {e}") from e
        inputs, outputs = (
            [_onnx_tensor(each) for each in found]
            for found in (self._session.get_inputs(), self._session.get_outputs())
        )
        check_graph(self.export, inputs, outputs, self._path)

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs by name for its input; ExportInfo says what they are.

        Raises:
            InputError: the graph does not take this input, or answers what it does not describe.
        """
        try:
            outputs = self._session.run(None, {self.export.input_name: x})
        except Exception as e:
            raise cannot_run(self._path, x, e) from e
        found = dict(zip(self.export.outputs, outputs, strict=True))
        check_answer(self.export, found, self._path)
        return found


def read_onnx(path: str) -> tuple[ExportInfo, bytes]:
    """The description in an ONNX file that is whole and has all of its weights inside.

    Returns:
        the description, and the content that was checked: a runtime is to open that, since the file
        may be another one by then.

    Raises:
        InputError: it cannot be read, is damaged, or takes weights from other files.
    """
    check_file(path)
    content = read_bytes(path, most=_MOST_BYTES)
    has_checksum = check_seal(content, path)
    export = ExportInfo.from_onnx_metadata(read_metadata(content, path), path)
    check_has_checksum(export, has_checksum, path)
    return export, content


def _onnx_tensor(tensor: Any) -> Tensor:
    """Of ONNX Runtime's: its type is such as tensor(float), a free side a name or None."""
    sides = tuple(n if isinstance(n, int) else None for n in tensor.shape)
    return Tensor(tensor.name, tensor.type.removeprefix("tensor(").removesuffix(")"), sides)


FORMAT = ExportFormat(
    name="onnx",
    extension=".onnx",
    write=write_onnx,
    runtime="onnxruntime",
    session=OnnxRuntimeSession,
    reads=(".onnx",),
    libraries=("onnx", "onnxruntime"),
    exporter=EXPORTER,
    not_written=BY_QUANTIZE,
    matrix_resizing=True,
)
