"""Images, and a stand-in for a model, of tests and faults of bulk prediction."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from topformer_d2.data.class_table import ClassTable
from topformer_d2.data.scene import Scene
from topformer_d2.inference.bulk import BulkResult, list_inputs, predict_in_bulk

IMAGES, SIZE = 40, 8
# All pixels of an image that ends its process, and which image that is.
POISON, POISONED = 255, 5


@dataclass
class Info:
    """The part of a ModelInfo that predictions need."""

    tasks: tuple[str, ...] = ("sem_seg", "instances")
    pixels: ClassTable = field(default_factory=ClassTable)
    objects: ClassTable = field(
        default_factory=lambda: ClassTable(names=("a",), colors=((0, 0, 0),), ids=(7,))
    )


class StandIn:
    """A predictor that costs nothing but the seconds it waits for each image."""

    def __init__(self, seconds: float = 0.0, dies: bool = True):
        self.info = Info()
        self.backend = type(self)._Backend()
        self._seconds = seconds
        self._dies = dies

    class _Backend:
        batch = 1

    def __call__(self, images: list[np.ndarray]) -> list[Scene]:
        time.sleep(self._seconds * len(images))
        if self._dies and any((image == POISON).all() for image in images):
            os._exit(1)
        return [self._scene(image) for image in images]

    def _scene(self, image: np.ndarray) -> Scene:
        height, width = image.shape[:2]
        return Scene(
            label=image[..., 0] // 64,
            boxes=[[0, 0, float(image[0, 0, 0]), 1]],
            classes=[0],
            scores=[0.5],
            size=(height, width),
        )


def write_inputs(folder: Path, count: int = IMAGES, *, corrupt: int = 0, poison: int = 0) -> None:
    """Synthetic images, of which so many are no images, or end the process that predicts them."""
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        if poison and i == POISONED:
            pixels[:] = POISON
        cv2.imwrite(str(folder / f"{i:05d}.png"), pixels)
    for path in sorted(folder.iterdir())[3::9][:corrupt]:
        path.write_bytes(path.read_bytes()[:60])


def bulk(
    inputs: Path, output: Path, *, seconds: float = 0.0, dies: bool = True, **keys: Any
) -> BulkResult:
    """predict_in_bulk with the stand-in."""
    return predict_in_bulk(
        StandIn(seconds, dies),
        list_inputs(inputs),
        output,
        identity={"stand-in": 1},
        partition_size=SIZE,
        **keys,
    )


def contents(output: Path) -> dict[str, bytes]:
    """All files of the partitions, by their paths in `output`."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.relative_to(output).parts[0].startswith("part-")
    }
