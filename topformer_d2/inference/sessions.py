"""Exported files in the runtimes that run them, on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from ..errors import InputError
from .export_info import ExportInfo
from .extras import import_extra


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
            path: .onnx file of tools/export_model.py.
            num_threads: of an operator; None = one for each core.

        Raises:
            InputError: the file cannot be read, or the runtime is not installed.
        """
        onnxruntime = import_extra("onnxruntime")
        _check_file(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # its exceptions have no base of their own
            raise InputError(f"{path} is no ONNX file that ONNX Runtime can run: {e}") from e
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.export = ExportInfo.from_onnx_metadata(metadata, str(path))

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs by name for its input; ExportInfo says what they are."""
        outputs = self._session.run(None, {self.export.input_name: x})
        return dict(zip(self.export.outputs, outputs, strict=True))


class OpenVinoSession:
    """An .xml or .onnx file in OpenVINO, used as OnnxRuntimeSession is."""

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them."""
        openvino = import_extra("openvino")
        _check_file(path)
        is_onnx = Path(path).suffix.lower() == ".onnx"
        if not is_onnx and not Path(path).with_suffix(".bin").is_file():
            raise InputError(f"{path} has no {Path(path).stem}.bin beside it: copy both files")
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
            if is_onnx:
                self.export = ExportInfo.from_onnx_metadata(_onnx_metadata(path), str(path))
            else:
                self.export = ExportInfo.from_openvino(model, str(path))
            self.channels_last = not self.export.with_preprocessing
            if self.channels_last:
                layouts = openvino.preprocess.PrePostProcessor(model)
                layouts.input().tensor().set_layout(openvino.Layout("NHWC"))
                layouts.input().model().set_layout(openvino.Layout("NCHW"))
                model = layouts.build()
            self._compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as e:
            mend = "" if is_onnx else ": copy both files, .xml and .bin, or export it again"
            raise InputError(f"{path} is no model that OpenVINO can run{mend}: {e}") from e
        # A compiled model runs for one caller at a time.
        self._lock = threading.Lock()

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        if self.channels_last:
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        # Its outputs lie in memory that the next run writes over.
        with self._lock:
            found = self._compiled(x, share_inputs=True)
            return {name: found[i].copy() for i, name in enumerate(self.export.outputs)}


def _onnx_metadata(path: str | Path) -> dict[str, str]:
    """OpenVINO reads an ONNX file's network but not its metadata."""
    model = import_extra("onnx").load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def _check_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise InputError(f"model file {path} does not exist")


SESSIONS = {"onnxruntime": OnnxRuntimeSession, "openvino": OpenVinoSession}
