"""Many image files in batches: the next is read while the network runs on the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..data.images import MAX_PIXELS, read_image
from ..data.scene import Scene
from ..errors import trouble_of_one

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
    or one of its images cannot be predicted, its images are predicted one by one.

    Args:
        predict: a Predictor, or what else takes images (H, W, 3) uint8 BGR.
        files: images.
        batch_size: images in a call of `predict`, at most.
        max_pixels: of an image; larger ones are problems before they are decoded.
    """
    batches = _read_in_batches(files, batch_size, max_pixels)
    for batch in _one_ahead(batches):
        _predict(predict, [each for each in batch if each.image is not None])
        while batch:
            found = batch.pop(0)
            yield found
            found.image = None


def _read_in_batches(
    files: Sequence[str], size: int, max_pixels: int
) -> Iterator[list[FilePrediction]]:
    batch: list[FilePrediction] = []
    pixels = 0
    for file in files:
        found = _read(file, max_pixels)
        batch.append(found)
        pixels += 0 if found.image is None else found.image[..., 0].size
        if len(batch) == size or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read(file: str, max_pixels: int) -> FilePrediction:
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


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in another thread while the caller uses the one before."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


def _predict(
    predict: Callable[[list[np.ndarray]], list[Scene]], batch: list[FilePrediction]
) -> None:
    """Set the scene of each image, or what is wrong with it."""
    if len(batch) > 1:
        try:
            scenes = predict([each.image for each in batch])
        except Exception as e:
            if trouble_of_one(e, "") is None:
                raise
            # The images are predicted below, where the exception holds no memory any more.
        else:
            for each, scene in zip(batch, scenes, strict=True):
                each.scene = scene
            return
    for each in batch:
        with noting_trouble(each):
            (each.scene,) = predict([each.image])
