"""Many image files in batches: the next is read while the network runs on the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..data.images import MAX_PIXELS, read_image
from ..data.scene import Scene
from ..errors import trouble_of_one

if TYPE_CHECKING:
    from .predictor import Predictor

T = TypeVar("T")

# A batch ends with the image by which it has so many, so that large images do not fill the memory.
_BATCH_PIXELS = 1 << 25


@dataclass
class FilePrediction:
    """What became of one image file.

    Attributes:
        file: as it was given.
        image: (H, W, 3) uint8 BGR; None where it could not be read.
        scene: what is in it; None where there is a problem.
        problem: one line that names the file; None = it was read and predicted.
    """

    file: str
    image: np.ndarray | None = None
    scene: Scene | None = None
    problem: str | None = None


def predict_in_batches(
    predictor: Predictor,
    files: Sequence[str],
    *,
    confidence: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[FilePrediction]:
    """Predict image files in their order, in batches of as many as the predictor's backend takes.

    At most two batches are in memory: one is read, in a thread of its own, while the other is
    predicted. Where a batch does not fit into the memory, or one of its images cannot be predicted,
    its images are predicted one by one.

    Args:
        predictor: of any backend; one of num_threads=1 reads in the caller's thread.
        files: images.
        confidence: as in a call of the predictor.
        max_pixels: of an image; larger ones are problems before they are decoded.
    """
    batches = _read_in_batches(files, predictor.backend.batch, max_pixels)
    for batch in batches if predictor.num_threads == 1 else _one_ahead(batches):
        _predict(predictor, [each for each in batch if each.image is not None], confidence)
        while batch:  # an image that is done with is not held until the next batch
            yield batch.pop(0)


def _read_in_batches(
    files: Sequence[str], size: int, max_pixels: int
) -> Iterator[list[FilePrediction]]:
    batch, pixels = [], 0
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


def _predict(predictor: Predictor, batch: list[FilePrediction], confidence: bool) -> None:
    """Set the scene of each image, or what is wrong with it."""
    if len(batch) > 1:
        try:
            scenes = predictor([each.image for each in batch], confidence=confidence)
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
            each.scene = predictor(each.image, confidence=confidence)
