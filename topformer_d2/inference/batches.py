"""Many image files in batches: the next is read while the network runs on the one before."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..data.images import MAX_PIXELS, read_image
from ..data.scene import Scene
from ..errors import ForkedError, is_out_of_memory, trouble_of_one

T = TypeVar("T")

# A batch ends with the image by which it has so many, so that large images do not fill the memory.
_BATCH_PIXELS = 1 << 25


@dataclass
class FilePrediction:
    """What became of one image file.

    Attributes:
        file: as it was given.
        image: (H, W, 3) uint8 BGR; None where it could not be read, and when it is let go.
        scene: what is in it; None where there is a problem.
        problem: one line that names the file; None = it was read and predicted.
    """

    file: str
    image: np.ndarray | None = None
    scene: Scene | None = None
    problem: str | None = None


def predict_in_batches(
    predict: Callable[[list[np.ndarray]], list[Scene]],
    files: Sequence[str],
    *,
    batch_size: int,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[FilePrediction]:
    """Read and predict image files in batches; what became of each file, in their order.

    The images of at most two batches are in memory: one batch is read, in a thread of its own,
    while the other is predicted.
    An image is let go when the next file is asked for. Where a batch does not fit into the memory,
    it and those after it are predicted in parts of half its size. Where one of its images cannot be
    predicted, its images are predicted one by one. Whoever stops early does not wait for the file
    that is being read.

    Args:
        predict: a Predictor, or what else takes images (H, W, 3) uint8 BGR.
        files: images.
        batch_size: images in a call of `predict`, at most.
        max_pixels: of an image; larger ones are problems before they are decoded.

    Raises:
        ForkedError: the process was forked from the one that began to read.
    """
    stopped = threading.Event()
    batches = _read_in_batches(files, batch_size, max_pixels, stopped)
    run = BatchPredictor(predict, batch_size)
    try:
        for batch in one_ahead(batches):
            run([each for each in batch if each.image is not None])
            while batch:
                found = batch.pop(0)
                yield found
                found.image = None
    finally:
        stopped.set()


def _read_in_batches(
    files: Sequence[str], size: int, max_pixels: int, stopped: threading.Event
) -> Iterator[list[FilePrediction]]:
    batch: list[FilePrediction] = []
    pixels = 0
    for file in files:
        if stopped.is_set():
            return
        found = _read_file(file, max_pixels)
        batch.append(found)
        pixels += 0 if found.image is None else found.image[..., 0].size
        if len(batch) == size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read_file(file: str, max_pixels: int) -> FilePrediction:
    """An image file that is read, or what is wrong with it."""
    found = FilePrediction(file)
    with noting_trouble(found):
        found.image = read_image(file, max_pixels=max_pixels)
    return found


@contextmanager
def noting_trouble(found: FilePrediction) -> Iterator[None]:
    """Keep what is wrong with one file; what the next file would meet as well is raised."""
    try:
        yield
    except Exception as e:
        found.problem = trouble_of_one(e, found.file)
        if found.problem is None:
            raise


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in another thread while the caller uses the one before.

    The threads are daemons: neither the caller nor the end of the program waits for one.
    """
    process = os.getpid()
    coming = _start_next(items)
    while True:
        if os.getpid() != process:  # a fork has no thread that would answer
            raise ForkedError
        if (item := coming.result()) is None:
            return
        coming = _start_next(items)
        yield item


def _start_next(items: Iterator[T]) -> Future[T | None]:
    """next(items) in a thread of its own, or what it raises; None at the end."""
    answer: Future[T | None] = Future()

    def make() -> None:
        try:
            answer.set_result(next(items, None))
        except BaseException as e:
            answer.set_exception(e)

    threading.Thread(target=make, name="image reader", daemon=True).start()
    return answer


class BatchPredictor:
    """Sets the scene of each image of a batch, or what is wrong with it."""

    def __init__(self, predict: Callable[[list[np.ndarray]], list[Scene]], size: int):
        """
        Args:
            predict: a Predictor, or what else takes images (H, W, 3) uint8 BGR.
            size: images in a call of `predict`, at most.
        """
        self._predict = predict
        self._size = size  # that fits into the memory, as far as is known

    def __call__(self, batch: list[FilePrediction]) -> None:
        while batch:
            part = batch[: self._size]
            trouble = self._try(part) if len(part) > 1 else None
            if trouble == "memory":
                self._size = len(part) // 2
                continue
            if trouble or len(part) == 1:
                for each in part:
                    with noting_trouble(each):
                        (each.scene,) = self._predict([each.image])
            batch = batch[len(part) :]

    def _try(self, part: list[FilePrediction]) -> str | None:
        """What kept images from being predicted in one call: "memory" or "image"; None = nothing.

        The exception is not returned, because it holds the memory of the call.
        """
        try:
            scenes = self._predict([each.image for each in part])
        except Exception as e:
            if trouble_of_one(e, "") is None:
                raise
            return "memory" if is_out_of_memory(e) else "image"
        for each, scene in zip(part, scenes, strict=True):
            each.scene = scene
        return None
