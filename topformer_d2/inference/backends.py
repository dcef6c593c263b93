"""What runs a network: PyTorch, or the runtime of an exported file, behind one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from ..checkpoint import SafeCheckpointer
from ..config import find_config
from ..data.augmentation import ResizeTransform
from ..errors import InputError
from ..modeling import build_model
from .allocator import keep_freed_memory
from .boxes import boxes_of_outputs
from .export_info import BOXES, LABELS, LOGITS
from .formats import FORMATS, of_runtime, runtimes_of
from .model_info import ModelInfo
from .optimization import optimize_for_inference

# Images in a run on a GPU; more take memory and little less time. On a CPU a batch takes longer, in
# each of the runtimes, than its images one by one.
_BATCH = 8


@dataclass
class NetworkOutput:
    """What a network gives for one image; a field is None where the network does not give it.

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
    """
    Attributes:
        info: of the model.
        size: (height, width) of its input; None = any.
        batch: images in a run, at most.
        does_resizing: it takes images as they are.
        gives_labels: label maps, and no logits.
        weights: the file that was read beside the model's own; None = there is none.
    """

    info: ModelInfo
    size: tuple[int, int] | None
    batch: int
    does_resizing: bool
    gives_labels: bool
    weights: str | None

    def run(self, images: Sequence[np.ndarray]) -> list[NetworkOutput]:
        """Images (H, W, 3) uint8 BGR, all of one size, to an output each."""


def resize_for(backend: Backend, image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) as it is to be given to a backend's run."""
    if backend.does_resizing:
        return image
    if backend.size is not None:
        height, width = image.shape[:2]
        return ResizeTransform(height, width, *backend.size).apply_image(image)
    return backend.info.resizing().get_transform(image).apply_image(image)


class TorchBackend:
    """The model itself, by optimize_for_inference."""

    size: tuple[int, int] | None = None
    does_resizing = gives_labels = False

    def __init__(self, cfg: CfgNode, weights: str):
        """
        Args:
            cfg: a config with the toolkit's keys; MODEL.DEVICE is where the model runs.
            weights: .pth (no pickled code) or .safetensors file, also an official one.

        Raises:
            InputError: the weights cannot be read or do not fit.
        """
        self.info = ModelInfo.from_config(cfg)
        self.batch = _BATCH
        if cfg.MODEL.DEVICE == "cpu":
            self.batch = 1
            keep_freed_memory()
        self.weights: str | None = weights
        model = build_model(cfg)
        SafeCheckpointer(model, require_all=True).load(weights)
        # Channels last: a CPU then takes about 0.7 times as long.
        self.model = optimize_for_inference(model).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(self, images: Sequence[np.ndarray]) -> list[NetworkOutput]:
        inputs = [{"image": self._to_tensor(image)} for image in images]
        outputs = self.model.predict(inputs, finish=_as_it_is)
        return [_from_detectron2(output) for output in outputs]

    def _to_tensor(self, image: np.ndarray) -> Tensor:
        ordered = image if self.info.image_format == "BGR" else image[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(ordered.transpose(2, 0, 1)))


def _as_it_is(logits: Tensor, *_: object) -> Tensor:
    return logits


def _from_detectron2(output: dict) -> NetworkOutput:
    found = NetworkOutput(logits=output.get("sem_seg"))
    if "instances" in output:
        instances = output["instances"].to("cpu")
        found.boxes = instances.pred_boxes.tensor.numpy()
        found.scores = instances.scores.numpy()
        found.classes = instances.pred_classes.numpy()
    return found


class FileBackend:
    """A file of `topformer export`, in another runtime.

    Attributes:
        export: what the file says of itself.
    """

    weights: str | None = None

    def __init__(self, path: str, runtime: str, num_threads: int | None = None):
        """
        Args:
            path: of the file.
            runtime: of an ExportFormat that reads such files.
            num_threads: of an operator; None = one for each core.

        Raises:
            InputError: the file cannot be read, or the runtime is not installed.
        """
        self._session = of_runtime(runtime).session(path, num_threads)
        self.export = export = self._session.export
        self.info = export.model
        self.size = export.size
        self.batch = export.batch or 1
        self.gives_labels = LABELS in export.outputs
        self.does_resizing = export.with_preprocessing
        # From a byte to its normalised value, for each channel of the network's input: (3, 256).
        mean, std = np.array([self.info.pixel_mean, self.info.pixel_std], np.float32)[:, :, None]
        self._tables = (np.arange(256, dtype=np.float32) - mean) / std

    def run(self, images: Sequence[np.ndarray]) -> list[NetworkOutput]:
        if self.does_resizing:
            return [self._run_whole(image) for image in images]
        outputs, size = self.infer(self.normalize(images)), images[0].shape[:2]
        return [self._unpack(outputs, n, size) for n in range(len(images))]

    def _run_whole(self, image: np.ndarray) -> NetworkOutput:
        """Of an image that the graph resizes."""
        height, width = image.shape[:2]
        size = self.size or self.info.resizing().sizes(height, width)[-1]
        output = self._unpack(self.infer(np.ascontiguousarray(image)), 0, size)
        output.network_size = size
        if self.export.has_raw_boxes and output.boxes is not None:
            output.boxes *= np.array([width / size[1], height / size[0]] * 2, np.float32)
        return output

    def infer(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs by name for its input: see ExportInfo."""
        return self._session.run(x)

    def normalize(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """To (N, 3, H, W) float32 in the channel order of the network's input."""
        is_rgb = self.info.image_format == "RGB"
        height, width = images[0].shape[:2]
        if self._session.channels_last:
            batch = np.empty((len(images), height, width, 3), np.float32)
            table = np.ascontiguousarray(self._tables.T)[None]
            for image, pixels in zip(images, batch, strict=True):
                image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if is_rgb else image
                cv2.LUT(image, table, dst=pixels)
            return batch.transpose(0, 3, 1, 2)
        batch = np.empty((len(images), 3, height, width), np.float32)
        for image, planes in zip(images, batch, strict=True):
            channels = cv2.split(image)[:: -1 if is_rgb else 1]
            for channel, table, plane in zip(channels, self._tables, planes, strict=True):
                cv2.LUT(channel, table, dst=plane)
        return batch

    def _unpack(self, outputs: dict[str, np.ndarray], n: int, size: Sequence[int]) -> NetworkOutput:
        """Of the image `n` of a batch; `size` is that of the network's input."""
        found = NetworkOutput()
        if LOGITS in outputs:
            found.logits = torch.from_numpy(outputs[LOGITS][n])
        if LABELS in outputs:
            found.labels = outputs[LABELS][n]
        if BOXES[0] in outputs:  # of a single image
            found.boxes, found.scores, found.classes = (outputs[name] for name in BOXES)
        elif self.export.has_raw_boxes:
            assert self.export.decoding is not None
            found.boxes, found.scores, found.classes = boxes_of_outputs(
                outputs, n, size, self.export.decoding, len(self.info.objects.names)
            )
        return found


BACKENDS = ("torch", *(each.runtime for each in FORMATS.values()))
_WEIGHTS = (".pth", ".pt", ".pkl", ".safetensors")


def open_backend(
    model: CfgNode | str, weights: str | None, name: str | None, num_threads: int | None
) -> Backend:
    """What Predictor's arguments of these names ask for; `name` is its `backend`.

    Raises:
        InputError: the model cannot be read, or not be run so.
    """
    name = _choose(model, name)
    if name == "torch":
        cfg = model if isinstance(model, CfgNode) else find_config(model)
        return TorchBackend(cfg, weights or cfg.MODEL.WEIGHTS)
    if weights is not None:
        raise InputError(f"{model} has its weights inside: leave {weights} out")
    return FileBackend(model, name, num_threads)


def _choose(model: CfgNode | str, name: str | None) -> str:
    """The backend `name`, where it runs the model; None = the default."""
    if name not in (None, *BACKENDS):
        raise InputError(f"`backend` is {name!r}; known: {list(BACKENDS)}")
    suffix = "" if isinstance(model, CfgNode) else Path(model).suffix.lower()
    if suffix in _WEIGHTS:
        raise InputError(f"{model} is a weights file: name its config, and this as its weights")
    runs_in = runtimes_of(suffix) or ("torch",)
    if name is None or name in runs_in:
        return name or runs_in[0]
    if name == "torch":
        raise InputError(f"{model} runs in {' or '.join(runs_in)}; torch runs a config's model")
    raise InputError(
        f"`backend` {name!r} does not run {model if suffix else 'a config'}: "
        "`topformer export` writes the file that it runs"
    )
