"""What writers of label files have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ...data.formats.contract import BACKGROUND
from ...data.outlines import outlines
from ...data.scene import Scene
from ..model_info import ModelInfo

# Regions of fewer pixels are left out: of a thousand that an image has, and of all.
_LEAST_SHARE = 1e-4
_LEAST_PIXELS = 9


class Box(NamedTuple):
    """A box x0, y0, x1, y1 in pixels, with the index of its class."""

    corners: tuple[float, float, float, float]
    category: int
    score: float


class Region(NamedTuple):
    """A region's corners (n, 2) in pixels, with the index of its class."""

    corners: np.ndarray
    category: int


class LabelWriter(ABC):
    """Writes what is in images as labels of one format.

    Attributes:
        info: of the model.
        images: files of the images.
        stems: names of their outputs, without extension.
    """

    def __init__(self, output: str, info: ModelInfo, images: Sequence[str], stems: Sequence[str]):
        """
        Args:
            output: folder, where label files are written.
            info: of the model.
            images: files of the images.
            stems: names of their outputs, as output_names gives them.
        """
        self.output, self.info, self.images, self.stems = output, info, images, stems

    @abstractmethod
    def targets(self) -> list[str]:
        """The files that will be written."""

    @abstractmethod
    def add(self, number: int, scene: Scene) -> None:
        """Write or keep what is in the image `images[number]`, which is done."""

    @abstractmethod
    def end(self) -> None:
        """Write what is one file for all images, of those that were added."""

    def boxes(self, scene: Scene) -> Iterator[Box]:
        """The boxes of a scene."""
        scores = [] if scene.scores is None else scene.scores.tolist()
        for box, index, score in zip(
            scene.boxes.tolist(), scene.classes.tolist(), scores, strict=True
        ):
            yield Box(tuple(box), index, score)

    def regions(self, scene: Scene) -> Iterator[Region]:
        """The connected regions of a scene's label map, larger ones first; none of background."""
        if scene.label is None:
            return
        least = max(_LEAST_PIXELS, _LEAST_SHARE * scene.label.size)
        names = self.info.pixels.names
        found = [
            Region(corners, int(index))
            for index in np.unique(scene.label)
            if names[index].casefold() != BACKGROUND
            for corners in outlines(scene.label == index, least)
        ]
        found.sort(key=lambda region: -_extent(region.corners))
        yield from found


def _extent(corners: np.ndarray) -> float:
    """Of the rectangle around a region, which is not smaller than that around a region within."""
    return float(np.ptp(corners, axis=0).prod())


def relative(path: str, folder: str) -> str:
    """The path of an image from a folder, as text files have it: with "/", and in UTF-8."""
    try:
        found = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    except ValueError:  # another drive
        found = os.path.abspath(path)
    return found.replace(os.sep, "/").encode(errors="backslashreplace").decode()
