"""What runs a network: PyTorch, ONNX Runtime or OpenVINO, behind one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model
from torch import Tensor

from ..checkpoint import SafeCheckpointer
from ..data.augmentation import ResizeTransform
from ..errors import InputError
from ..modeling import TopFormerMultiTask, TopFormerSegmentor
from .export_info import BOXES, LABELS, LOGITS, ExportInfo
from .extras import import_extra
from .folding import fold_batch_norm
from .model_info import ModelInfo


@dataclass
class NetworkOutput:
    """Of one image; None for what the network does not give.

    Attributes:
        logits: (K, h, w) float32, at the head's stride.
        network_size: (height, width) of the network's input, where the graph resizes the image.
        labels: (H, W) integers, from a network that ends in a label map.
        boxes, scores, classes: (n, 4) XYXY in pixels of the network's input, (n,), (n,).
    """

    logits: Tensor | None = None
    network_size: tuple[int, int] | None = None
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    classes: np.ndarray | None = None


class Backend(Protocol):
    """Attributes: `info`, of the model; `size`, (height, width) of its input, None = any;
    `batch`, images in a run, None = any; `does_resizing`, it takes images as they are."""

    info: ModelInfo
    size: tuple[int, int] | None
    batch: int | None
    does_resizing: bool

    def run(self, images: Sequence[np.ndarray]) -> list[NetworkOutput]:
        """Images (H, W, 3) uint8 BGR, all of one size, to an output each."""


def resize_for(backend: Backend, image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) as it is to be given to a backend's run."""
    if backend.does_resizing:
        return image
    if backend.size is not None:
        return ResizeTransform(*image.shape[:2], *backend.size).apply_image(image)
    return backend.info.resizing().get_transform(image).apply_image(image)


class TorchBackend:
    """The model itself, its BatchNorms folded."""

    size = batch = None
    does_resizing = False

    def __init__(self, cfg, weights: str):
        """
        Args:
            cfg: a config with the toolkit's keys; MODEL.DEVICE is where the model runs.
            weights: .pth (no pickled code) or .safetensors file, also an official one.

        Raises:
            InputError: the weights cannot be read or do not fit.
        """
        self.info = ModelInfo.from_config(cfg)
        model = build_model(cfg)
        SafeCheckpointer(model, require_all=True).load(weights)
        # Channels last: a CPU then takes about 0.7 times as long.
        self.model = fold_batch_norm(model).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(self, images: Sequence[np.ndarray]) -> list[NetworkOutput]:
        inputs = [{"image": self._to_tensor(image)} for image in images]
        if isinstance(self.model, (TopFormerSegmentor, TopFormerMultiTask)):
            outputs = self.model.predict(inputs, finish=_as_it_is)
        else:
            outputs = self.model(inputs)
        return [_from_detectron2(output) for output in outputs]

    def _to_tensor(self, image: np.ndarray) -> Tensor:
        ordered = image if self.info.image_format == "BGR" else image[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(ordered.transpose(2, 0, 1)))


def _as_it_is(logits: Tensor, *_) -> Tensor:
    return logits


def _from_detectron2(output: dict) -> NetworkOutput:
    found = NetworkOutput(logits=output.get("sem_seg"))
    if "instances" in output:
        instances = output["instances"].to("cpu")
        found.boxes = instances.pred_boxes.tensor.numpy()
        found.scores = instances.scores.numpy()
        found.classes = instances.pred_classes.numpy()
    return found


class _FileBackend:
    """What the two backends of exported files share."""

    def __init__(self, export: ExportInfo, path: str):
        self._export = export
        self.info = export.model
        self.size = export.size
        self.batch = export.batch
        self.does_resizing = export.with_preprocessing
        if export.decoding is not None:
            raise InputError(
                f"{path} gives raw detections, for other runtimes: export it with boxes"
            )
        # From a byte to its normalised value, for each channel of the network's input.
        levels = np.arange(256, dtype=np.float32)
        scales = zip(self.info.pixel_mean, self.info.pixel_std, strict=True)
        self._tables = [((levels - np.float32(m)) / np.float32(s)) for m, s in scales]

    def run(self, images: Sequence[np.ndarray]) -> list[NetworkOutput]:
        if self.does_resizing:
            return [self._run_whole(image) for image in images]
        outputs = self.infer(self.normalize(images))
        return [self._unpack(outputs, n) for n in range(len(images))]

    def _run_whole(self, image: np.ndarray) -> NetworkOutput:
        """Of an image that the graph resizes."""
        output = self._unpack(self.infer(np.ascontiguousarray(image)), 0)
        output.network_size = self.size or self.info.resizing().sizes(*image.shape[:2])[-1]
        return output

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs by name for its input: see ExportInfo."""
        raise NotImplementedError

    def normalize(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """To (N, 3, H, W) float32 in the channel order of the network's input."""
        batch = np.empty((len(images), 3, *images[0].shape[:2]), np.float32)
        order = (0, 1, 2) if self.info.image_format == "BGR" else (2, 1, 0)
        for image, planes in zip(images, batch, strict=True):
            for channel, table, plane in zip(order, self._tables, planes, strict=True):
                cv2.LUT(cv2.extractChannel(image, channel), table, dst=plane)
        return batch

    def _unpack(self, outputs: dict[str, np.ndarray], n: int) -> NetworkOutput:
        found = NetworkOutput()
        if LOGITS in outputs:
            found.logits = torch.from_numpy(outputs[LOGITS][n])
        if LABELS in outputs:
            found.labels = outputs[LABELS][n]
        if BOXES[0] in outputs:  # of a single image
            found.boxes, found.scores, found.classes = (outputs[name] for name in BOXES)
        return found


class OnnxRuntimeBackend(_FileBackend):
    """An ONNX file of tools/export_model.py in ONNX Runtime, on the CPU."""

    def __init__(self, path: str, num_threads: int | None = None):
        """
        Args:
            path: .onnx file.
            num_threads: of an operator; None = one for each core.

        Raises:
            InputError: the file cannot be read, or ONNX Runtime is not installed.
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
        super().__init__(ExportInfo.from_onnx_metadata(metadata, path), path)

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._session.run(None, {self._export.input_name: images})
        return dict(zip(self._export.outputs, outputs, strict=True))


class OpenVinoBackend(_FileBackend):
    """An .xml or .onnx file of tools/export_model.py in OpenVINO, on the CPU."""

    def __init__(self, path: str, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeBackend has them."""
        openvino = import_extra("openvino")
        _check_file(path)
        core = openvino.Core()
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if num_threads:
            config["INFERENCE_NUM_THREADS"] = num_threads
        try:
            model = core.read_model(path)
            self._compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as e:
            raise InputError(f"{path} is no model that OpenVINO can run: {e}") from e
        if path.endswith(".onnx"):
            export = ExportInfo.from_onnx_metadata(_onnx_metadata(path), path)
        else:
            export = ExportInfo.from_openvino(model, path)
        super().__init__(export, path)

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        # Its outputs lie in memory that the next run writes over.
        found = self._compiled(images, share_inputs=True)
        return {name: found[i].copy() for i, name in enumerate(self._export.outputs)}


def _onnx_metadata(path: str) -> dict[str, str]:
    """OpenVINO reads an ONNX file's network but not its metadata."""
    model = import_extra("onnx").load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise InputError(f"model file {path} does not exist")


_OF_FILES = {"onnxruntime": OnnxRuntimeBackend, "openvino": OpenVinoBackend}
BACKENDS = ("torch", *_OF_FILES)
_OF_EXTENSION = {".onnx": "onnxruntime", ".xml": "openvino"}


def default_backend(path: str) -> str:
    """The backend for a file by its extension; "torch" for what is no exported file."""
    return _OF_EXTENSION.get(Path(path).suffix.lower(), "torch")


def open_exported(path: str, backend: str, num_threads: int | None) -> Backend:
    """The backend of that name on an exported file.

    Raises:
        InputError: as the backend's constructor.
    """
    return _OF_FILES[backend](path, num_threads)
