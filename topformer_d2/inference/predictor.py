"""From images to label maps and boxes, at about the network's cost."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from ..data.augmentation import ResizeTransform
from ..data.image_files import list_images
from ..data.images import MAX_PIXELS, check_image
from ..data.scene import Scene
from ..errors import ForkedError, InputError, printable
from ..logs import get_logger
from .answer import boxes_of, labels_of, to_scene
from .backends import NetworkOutput, open_backend, resize_for
from .batches import predict_in_batches
from .labels import label_map
from .model_info import ModelInfo
from .threads import threads
from .tiled_boxes import merge_boxes
from .tiles import ALIGNMENT, TiledLogits, tile_places
from .video import VideoReader

logger = get_logger(__name__)

# The process in which a Predictor first ran on several threads. PyTorch's and the runtimes' threads
# are gone in a fork, and a call there would wait for them for ever.
_threads_run_in: int | None = None

# The runtimes start as many as they are told to, until the machine has no memory left.
_MOST_THREADS = 1024


class Predictor:
    """A model with all that stands before and behind it.

    An image is resized by the protocol's rule (OpenCV, bilinear) or, for a file of a fixed size,
    stretched to that; the network runs; labels and boxes come at the image's own size.

    Several threads may call it at once; in OpenVINO the network then runs for one after the other.
    It can be pickled, copied and sent to a spawned process: it is then opened again from its files.

    Attributes:
        info: of the model: its tasks, classes and colours.
        backend: what runs the network.
    """

    def __init__(
        self,
        model: CfgNode | str | os.PathLike,
        weights: str | os.PathLike | None = None,
        *,
        backend: str | None = None,
        num_threads: int | None = None,
        tile_size: int | None = None,
    ):
        """
        Args:
            model: the name of a model of list_models(), as "camvid_t", or a file that `topformer
                export` wrote, which need nothing else; a config with the toolkit's keys, a config
                file, or the name of a shipped one.
            weights: of a config's model: .pth (no pickled code) or .safetensors; None = its
                MODEL.WEIGHTS.
            backend: "torch" for a config, a runtime such as "onnxruntime", "openvino", "ncnn" or
                "mnn" for a file; None = by the extension: .onnx runs in ONNX Runtime.
            num_threads: of the network and of what stands around it; None = as the libraries are
                set.
            tile_size: images keep their own size, and one that has a longer side is run in
                overlapping tiles of this size, a multiple of 64 pixels, tile by tile, with one
                tile's memory and that of a row of tiles' logits. None = images are resized by the
                protocol's rule and run in one pass.

        Raises:
            InputError: the model cannot be read or run so, the tile size does not fit it, or this
                process was forked from one in which a Predictor has run on several threads.
        """
        _check_numbers(num_threads, tile_size)
        if _threads_run_in not in (None, os.getpid()):
            raise ForkedError
        model = model.clone() if isinstance(model, CfgNode) else os.fspath(model)
        weights = os.fspath(weights) if weights else None
        self.backend = open_backend(model, weights, backend, num_threads)
        self.info = self.backend.info
        self._process = os.getpid()
        # Another process may stand in another folder.
        is_file = isinstance(model, str) and bool(Path(model).suffix) and os.path.exists(model)
        self._model = os.path.abspath(model) if is_file else model
        # A config names them from the working folder on; what is absolute may be the package's.
        found = weights or self.backend.weights
        is_here = bool(found) and not os.path.isabs(found) and os.path.exists(found)
        self._weights = os.path.abspath(found) if is_here else weights
        self._backend_name = backend
        self._num_threads = num_threads
        self._tile_size = tile_size
        if tile_size is not None:
            self._check_tiling()

    def __reduce__(self) -> tuple:
        """Pickled and copied as what opens it again, from the same files, with the same classes."""
        keys = {
            "backend": self._backend_name,
            "num_threads": self._num_threads,
            "tile_size": self._tile_size,
        }
        return _open_again, (type(self), self._model, self._weights, keys, self.info)

    @overload
    def __call__(self, images: np.ndarray, *, confidence: bool = False) -> Scene: ...

    @overload
    def __call__(
        self, images: Sequence[np.ndarray], *, confidence: bool = False
    ) -> list[Scene]: ...

    def __call__(
        self, images: np.ndarray | Sequence[np.ndarray], *, confidence: bool = False
    ) -> Scene | list[Scene]:
        """
        Args:
            images: one (H, W, 3) uint8 BGR, as OpenCV and Detectron2 read them, or a list or tuple
                of several. On a GPU those of one size share batches of 8; on a CPU one by one is
                faster.
            confidence: also give the probability of each pixel's label; the label map takes longer.

        Returns:
            of one image a Scene, of several a list of them: labels uint8 up to 256 classes, else
            uint16; boxes in pixels, best first.

        Raises:
            InputError: an image is not such an array or has no pixels, the model cannot do this or
                gives NaN, or this process was forked from the one that opened the Predictor.
        """
        global _threads_run_in
        if os.getpid() != self._process:
            raise ForkedError
        if self._num_threads != 1:
            _threads_run_in = self._process
        several = isinstance(images, (list, tuple))
        found: list[Any] = list(images) if several else [images]
        for image in found:
            check_image(image)
        with threads(self._num_threads), torch.inference_mode():
            scenes = self._predict(found, confidence)
        return scenes if several else scenes[0]

    def folder(
        self,
        path: str | os.PathLike,
        *,
        confidence: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[str, Scene]]:
        """The files of a folder (or one file, or a glob), each with what is in it.

        They come in the order of their names. The next ones are read, in one more thread, while the
        network runs. A file that cannot be read or predicted, as one that is too large for the
        memory, is left out, with a warning in the log.

        Args:
            path: of the files.
            confidence: as in a call.
            max_pixels: of an image; larger ones are left out before they are decoded.

        Raises:
            InputError: there is no image, none could be predicted, or this process was forked from
                the one that opened the Predictor or began to read the folder.
        """
        done, problem = 0, None
        for found in predict_in_batches(
            lambda images: self(images, confidence=confidence),
            list_images(path),
            batch_size=self.backend.batch,
            max_pixels=max_pixels,
        ):
            if found.scene is None:
                problem = found.problem
                logger.warning("skipped: %s", problem)
                continue
            done += 1
            yield found.file, found.scene
        if not done:
            raise InputError(f"no image could be predicted: {problem}")

    def video(
        self, source: str | os.PathLike | int, *, confidence: bool = False
    ) -> Iterator[tuple[np.ndarray, Scene]]:
        """The frames (H, W, 3) of a video file or camera, each with what is in it.

        Frames that cannot be decoded are left out, and counted in a warning in the log at the end.

        Raises:
            InputError: it cannot be read.
        """
        reader = VideoReader(source)
        for frame in reader:
            yield frame, self(frame, confidence=confidence)
        if reader.problem:
            logger.warning("%s", printable(reader.problem, newlines=True))

    def _predict(self, images: list[np.ndarray], confidence: bool) -> list[Scene]:
        scenes: list[Scene] = [Scene()] * len(images)
        groups = defaultdict(list)
        for i, image in enumerate(images):
            groups[image.shape].append(i)
        for members in groups.values():
            for start in range(0, len(members), self.backend.batch):
                batch = members[start : start + self.backend.batch]
                found = self._predict_equal([images[i] for i in batch], confidence)
                for i, scene in zip(batch, found, strict=True):
                    scenes[i] = scene
        return scenes

    def _predict_equal(self, images: list[np.ndarray], confidence: bool) -> list[Scene]:
        """Of as many images of one size as the backend takes at a time."""
        resized = [self._resize(image) for image in images]
        size, input_size = images[0].shape[:2], resized[0].shape[:2]
        if self._tile_size and max(input_size) > self._tile_size:
            return [self._predict_tiled(image, size, confidence) for image in resized]
        outputs = self.backend.run(resized)
        return [to_scene(output, self.info, size, input_size, confidence) for output in outputs]

    def _resize(self, image: np.ndarray) -> np.ndarray:
        """To the size at which the backend takes it, in tiles where it is large."""
        if self._tile_size is None:
            return resize_for(self.backend, image)
        # Tiles join where a side that has several is a multiple of the stride.
        sides = [_round_up(side, self.info.size_divisor) for side in image.shape[:2]]
        sides = [_round_up(s, ALIGNMENT) if s > self._tile_size else s for s in sides]
        return ResizeTransform(*image.shape[:2], *sides).apply_image(image)

    def _predict_tiled(self, image: np.ndarray, size: tuple[int, int], confidence: bool) -> Scene:
        """Of an image (H, W, 3) as the network sees it; (height, width) is the answer's `size`."""
        input_size, tile_size = image.shape[:2], self._tile_size
        assert tile_size is not None
        outputs: dict[tuple[int, int], NetworkOutput] = {}

        def run(tile: np.ndarray, y: int, x: int) -> Tensor | None:
            (output,) = self.backend.run([tile])
            outputs[y, x] = NetworkOutput(
                boxes=output.boxes, scores=output.scores, classes=output.classes
            )
            return None if output.logits is None else output.logits.cpu()

        fields = {}
        if "sem_seg" in self.info.tasks:
            logits = TiledLogits(run, image, tile_size)
            fields = labels_of(
                label_map(logits, size, input_size=input_size, confidence=confidence)
            )
        else:
            for y, x in tile_places(input_size, tile_size):
                run(image[y : y + tile_size, x : x + tile_size], y, x)
        found = NetworkOutput()
        if "instances" in self.info.tasks:
            found = merge_boxes(outputs, input_size, tile_size)
        return Scene(size=size, info=self.info, **fields, **boxes_of(found, size, input_size))

    def _check_tiling(self) -> None:
        if self.backend.does_resizing or self.backend.size is not None:
            raise InputError(
                "tile_size needs a model for images of any size, without preprocessing: export it "
                "so, or leave the tiles out"
            )
        if self.backend.gives_labels:
            raise InputError(
                "tile_size needs logits, which are blended where tiles overlap, and this file ends "
                "in a label map: export it with logits, or leave the tiles out"
            )


def _open_again(
    kind: type[Predictor], model: CfgNode | str, weights: str | None, keys: dict, info: ModelInfo
) -> Predictor:
    predictor = kind(model, weights, **keys)
    # The classes' names may come from a dataset that is registered in the other process alone.
    predictor.info = predictor.backend.info = info
    return predictor


def _round_up(side: int, divisor: int) -> int:
    return -(-side // divisor) * divisor


def _check_numbers(num_threads: int | None, tile_size: int | None) -> None:
    if num_threads is not None and not (
        isinstance(num_threads, int) and 0 < num_threads <= _MOST_THREADS
    ):
        raise InputError(
            f"`num_threads` is {num_threads}; it takes an integer from 1 to {_MOST_THREADS}, and "
            "the libraries choose where it is left out"
        )
    if tile_size is not None and not (
        isinstance(tile_size, int) and tile_size > 0 and tile_size % ALIGNMENT == 0
    ):
        raise InputError(
            f"`tile_size` is {tile_size}; it takes a multiple of {ALIGNMENT}, and images run whole "
            "where it is left out"
        )
