"""From images to label maps and boxes, at about the network's cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.layers import batched_nms
from torch import Tensor

from ..config import load_config
from ..data.augmentation import ResizeTransform
from ..data.files import list_images, read_image
from ..errors import InputError
from .backends import (
    BACKENDS,
    FileBackend,
    NetworkOutput,
    TorchBackend,
    default_backend,
    resize_for,
)
from .labels import label_map
from .scene import Scene
from .threads import threads
from .tiles import ALIGNMENT, TiledLogits, tile_places
from .video import VideoReader

# IoU above which boxes of two tiles are one object's.
_NMS_THRESHOLD = 0.5


class Predictor:
    """A model with all that stands before and behind it.

    An image is resized by the protocol's rule (OpenCV, bilinear) or, for a file of a fixed size,
    stretched to that; the network runs; labels and boxes come at the image's own size.

    Attributes:
        info: of the model: its tasks, classes and colours.
        backend: what runs the network.
    """

    def __init__(
        self,
        model: CfgNode | str,
        weights: str | None = None,
        *,
        backend: str | None = None,
        num_threads: int | None = None,
        tile_size: int | None = None,
    ):
        """
        Args:
            model: a config with the toolkit's keys, a config file, or a file that
                tools/export_model.py wrote, which needs nothing else.
            weights: of a config's model: .pth (no pickled code) or .safetensors; None = its
                MODEL.WEIGHTS.
            backend: "torch" for a config, "onnxruntime" or "openvino" for a file; None = by the
                extension: .onnx runs in ONNX Runtime, .xml in OpenVINO.
            num_threads: of the network and of what stands around it; None = as the libraries are
                set.
            tile_size: an image that has a longer side, after the resizing, is run in overlapping
                tiles of this size, a multiple of 64 pixels, with one tile's memory and that of a
                row of tiles' logits. None = all images in one pass.

        Raises:
            InputError: the model cannot be read or run so, or the tile size does not fit it.
        """
        backend = backend or ("torch" if isinstance(model, CfgNode) else default_backend(model))
        if backend not in BACKENDS:
            raise InputError(f"backend is {backend!r}; known: {list(BACKENDS)}")
        if num_threads is not None and num_threads < 1:
            raise InputError(f"num_threads is {num_threads}; it takes 1 or more, or None")
        if backend == "torch":
            cfg = load_config(model) if isinstance(model, str) else model
            self.backend = TorchBackend(cfg, weights or cfg.MODEL.WEIGHTS)
        else:
            _check_exported(model, weights, backend)
            self.backend = FileBackend(model, backend, num_threads)
        self.info = self.backend.info
        self._num_threads = num_threads
        self._tile_size = tile_size
        if tile_size is not None:
            self._check_tile_size(tile_size)

    def __call__(
        self, images: np.ndarray | Sequence[np.ndarray], *, confidence: bool = False
    ) -> Scene | list[Scene]:
        """
        Args:
            images: one (H, W, 3) uint8 BGR, as OpenCV and Detectron2 read them, or several.
                Those of one size share a batch.
            confidence: also give the probability of each pixel's label; the label map takes longer.

        Returns:
            of one image a Scene, of several a list of them: labels uint8 up to 256 classes, else
            uint16; boxes in pixels, best first.

        Raises:
            InputError: an image is no such array or has no pixels, or the model cannot do this.
        """
        several = not isinstance(images, np.ndarray)
        found = list(images) if several else [images]
        for image in found:
            _check_image(image)
        with threads(self._num_threads), torch.inference_mode():
            scenes = self._predict(found, confidence)
        return scenes if several else scenes[0]

    def folder(self, path: str, *, confidence: bool = False) -> Iterator[tuple[str, Scene]]:
        """The files of a folder (or one file, or a glob), each with what is in it.

        Raises:
            InputError: there is no image, or one cannot be read.
        """
        for file in list_images(path):
            yield file, self(read_image(file), confidence=confidence)

    def video(
        self, source: str | int, *, confidence: bool = False
    ) -> Iterator[tuple[np.ndarray, Scene]]:
        """The frames (H, W, 3) of a video file or camera, each with what is in it.

        Raises:
            InputError: it cannot be read.
        """
        for frame in VideoReader(source):
            yield frame, self(frame, confidence=confidence)

    def _predict(self, images: list[np.ndarray], confidence: bool) -> list[Scene]:
        resized = [self._resize(image) for image in images]
        scenes: list[Scene] = [Scene()] * len(images)
        groups = defaultdict(list)
        for i, image in enumerate(resized):
            if self._tile_size and max(image.shape[:2]) > self._tile_size:
                scenes[i] = self._predict_tiled(image, images[i].shape[:2], confidence)
            else:
                groups[image.shape[:2]].append(i)
        for members in groups.values():
            step = self.backend.batch or len(members)
            for start in range(0, len(members), step):
                batch = members[start : start + step]
                outputs = self.backend.run([resized[i] for i in batch])
                for i, output in zip(batch, outputs, strict=True):
                    scenes[i] = _to_scene(
                        output, images[i].shape[:2], resized[i].shape[:2], confidence
                    )
        return scenes

    def _resize(self, image: np.ndarray) -> np.ndarray:
        """To the size at which the backend takes it, in tiles where it is large."""
        resized = resize_for(self.backend, image)
        if self._tile_size is None:
            return resized
        # Tiles join where a side that has several is a multiple of the stride.
        sides = [
            side if side <= self._tile_size else -(-side // ALIGNMENT) * ALIGNMENT
            for side in resized.shape[:2]
        ]
        return ResizeTransform(*resized.shape[:2], *sides).apply_image(resized)

    def _predict_tiled(self, image: np.ndarray, size: tuple[int, int], confidence: bool) -> Scene:
        """Of an image (H, W, 3) as the network sees it; (height, width) is the answer's `size`."""
        found: list[NetworkOutput] = []

        def run(tile: np.ndarray, y: int, x: int) -> Tensor | None:
            (output,) = self.backend.run([tile])
            if output.boxes is not None:
                height, width = tile.shape[:2]
                inside = output.boxes.clip(0, np.array([width, height] * 2, np.float32))
                output.boxes = inside + np.array([x, y, x, y], np.float32)
                found.append(output)
            return None if output.logits is None else output.logits.cpu()

        scene = Scene()
        if "sem_seg" in self.info.tasks:
            logits = TiledLogits(run, image, self._tile_size)
            _set_labels(
                scene, label_map(logits, size, input_size=image.shape[:2], confidence=confidence)
            )
        else:
            for y, x in tile_places(image.shape[:2], self._tile_size):
                run(image[y : y + self._tile_size, x : x + self._tile_size], y, x)
        if found:
            _set_boxes(scene, _merge(found), size, image.shape[:2])
        return scene

    def _check_tile_size(self, tile_size: int) -> None:
        if tile_size < ALIGNMENT or tile_size % ALIGNMENT:
            raise InputError(f"tile_size is {tile_size}; it takes a multiple of {ALIGNMENT}")
        if self.backend.does_resizing or self.backend.size is not None:
            raise InputError(
                "tile_size needs a model for images of any size, without preprocessing: export it "
                "so, or leave the tiles out"
            )


def _check_image(image: np.ndarray) -> None:
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise InputError(
            "an image is a NumPy array (H, W, 3) of uint8, BGR, with at least one pixel; this is "
            f"{type(image).__name__} of shape {shape} and type {dtype}"
        )


def _to_scene(
    output: NetworkOutput,
    size: tuple[int, int],
    input_size: tuple[int, int],
    confidence: bool,
) -> Scene:
    """What a network found in an image of `size`, given to it at `input_size`."""
    scene = Scene()
    if output.logits is not None:
        network_size = output.network_size or input_size
        _set_labels(
            scene, label_map(output.logits, size, input_size=network_size, confidence=confidence)
        )
    elif output.labels is not None:
        if confidence:
            raise InputError("this file gives labels alone: export it with logits for confidence")
        label = cv2.resize(output.labels, size[::-1], interpolation=cv2.INTER_NEAREST)
        scene.label = _narrow(label)
    if output.boxes is not None:
        _set_boxes(scene, output, size, input_size)
    return scene


def _set_labels(scene: Scene, found: Tensor | tuple[Tensor, Tensor]) -> None:
    labels, scores = found if isinstance(found, tuple) else (found, None)
    scene.label = _narrow(labels.cpu().numpy())
    scene.confidence = None if scores is None else scores.cpu().numpy()


def _narrow(labels: np.ndarray) -> np.ndarray:
    """uint8 as it is, wider integers as uint16."""
    return labels if labels.dtype == np.uint8 else labels.astype(np.uint16)


def _set_boxes(
    scene: Scene, output: NetworkOutput, size: tuple[int, int], input_size: tuple[int, int]
) -> None:
    """Boxes at `input_size` as boxes within `size`, those without an area left out."""
    height, width = size
    scale = np.array([width / input_size[1], height / input_size[0]] * 2, np.float32)
    boxes = (output.boxes * scale).clip(0, np.array([width, height] * 2, np.float32))
    keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    scene.boxes = boxes[keep]
    scene.classes = output.classes[keep].tolist()
    scene.scores = output.scores[keep].tolist()


def _merge(outputs: list[NetworkOutput]) -> NetworkOutput:
    """The boxes of all tiles, those of one object in several tiles once, best first."""
    boxes, scores, classes = (
        torch.from_numpy(np.concatenate([getattr(output, name) for output in outputs]))
        for name in ("boxes", "scores", "classes")
    )
    keep = batched_nms(boxes, scores, classes, _NMS_THRESHOLD)
    return NetworkOutput(
        boxes=boxes[keep].numpy(), scores=scores[keep].numpy(), classes=classes[keep].numpy()
    )


def _check_exported(path: str, weights: str | None, backend: str) -> None:
    if isinstance(path, CfgNode) or default_backend(path) == "torch":
        raise InputError(
            f"backend {backend!r} runs an exported file, .onnx or .xml: write one with "
            "tools/export_model.py"
        )
    if weights is not None:
        raise InputError(f"{path} has its weights inside: leave {weights} out")
