"""Exported files in the runtimes that run them, on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import check_regular_file, read_bytes
from ..logs import get_logger
from .checksum import check_seal
from .export_info import METADATA_KEY, ExportInfo
from .extras import import_extra
from .graph import Tensor, check_answer, check_graph
from .onnx_file import read_metadata

logger = get_logger(__name__)

# Of a file: protobuf's limit, and more than the .xml of any network here.
_MOST_ONNX, _MOST_XML = 1 << 31, 1 << 26


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
        self.export = _read_onnx(self._path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        try:
            self._session = onnxruntime.InferenceSession(
                self._path, options, providers=["CPUExecutionProvider"]
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
            raise _cannot_run(self._path, x, e) from e
        found = dict(zip(self.export.outputs, outputs, strict=True))
        check_answer(self.export, found, self._path)
        return found


class OpenVinoSession:
    """An .xml or .onnx file in OpenVINO, used as OnnxRuntimeSession is."""

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them."""
        openvino = import_extra("openvino")
        self._path = str(path)
        is_onnx = Path(path).suffix.lower() == ".onnx"
        if is_onnx:
            self.export = _read_onnx(self._path)
        else:
            has_checksum = _check_xml(self._path)
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
            model = core.read_model(path)
            if not is_onnx:
                self.export = ExportInfo.from_openvino(model, self._path)
                _check_has_checksum(self.export, has_checksum, self._path)
            tensors = (
                [_openvino_tensor(each) for each in f] for f in (model.inputs, model.outputs)
            )
            check_graph(self.export, *tensors, self._path)
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
                raise _cannot_run(self._path, x, e) from e
            outputs = {name: found[i].copy() for i, name in enumerate(self.export.outputs)}
        check_answer(self.export, outputs, self._path)
        return outputs


def _read_onnx(path: str) -> ExportInfo:
    """The description in an ONNX file that is whole and has all of its weights inside."""
    _check_file(path)
    content = read_bytes(path, most=_MOST_ONNX)
    has_checksum = check_seal(content, path)
    export = ExportInfo.from_onnx_metadata(read_metadata(content, path), path)
    _check_has_checksum(export, has_checksum, path)
    return export


def _check_xml(path: str) -> bool:
    """Whether an .xml file has a checksum; an InputError where it or its .bin is another."""
    _check_file(path)
    weights = Path(path).with_suffix(".bin")
    if not weights.exists():
        raise InputError(f"{path} has no {weights.name} beside it: copy both files")
    check_regular_file(weights)
    content = read_bytes(path, most=_MOST_XML)
    if f"<{METADATA_KEY} ".encode() not in content:
        raise InputError(
            f"{path} is not a model of `topformer export`, or was cut: copy both files, .xml "
            "and .bin, or export it again"
        )
    return check_seal(content, path, weights)


def _check_has_checksum(export: ExportInfo, has_checksum: bool, path: str) -> None:
    """Format 1 has none."""
    if export.format > 1 and not has_checksum:
        raise InputError(f"{path} has lost its checksum: copy it again, or export it again")
    if not has_checksum:
        logger.debug("%s has no checksum: damage to it is not found", path)


def _check_file(path: str | Path) -> None:
    if not Path(path).exists():
        raise InputError(f"model file {path} does not exist")
    check_regular_file(path)


def _cannot_run(path: str, x: np.ndarray, e: Exception) -> InputError:
    return InputError(f"{path} cannot be run on {x.dtype} of shape {tuple(x.shape)}: {e}")


def _onnx_tensor(tensor) -> Tensor:
    """Of ONNX Runtime's: its type is such as tensor(float), a free side a name or None."""
    sides = tuple(n if isinstance(n, int) else None for n in tensor.shape)
    return Tensor(tensor.name, tensor.type.removeprefix("tensor(").removesuffix(")"), sides)


def _openvino_tensor(tensor) -> Tensor:
    shape = tensor.get_partial_shape()
    sides = None
    if shape.rank.is_static:
        sides = tuple(n.get_length() if n.is_static else None for n in shape)
    name = tensor.get_any_name() if tensor.get_names() else ""
    return Tensor(name, _OPENVINO_TYPES.get(tensor.get_element_type().to_string(), "other"), sides)


_OPENVINO_TYPES = {"f32": "float", "u8": "uint8", "i32": "int32", "i64": "int64"}
SESSIONS = {"onnxruntime": OnnxRuntimeSession, "openvino": OpenVinoSession}
