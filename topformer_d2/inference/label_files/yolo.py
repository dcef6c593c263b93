"""YOLO's text files, one an image, and data.yaml.

Source: https://docs.ultralytics.com/datasets/detect and .../segment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import yaml

from ...data.scene import Scene
from ...errors import InputError
from ...files import write_beside
from ..model_info import ModelInfo
from .base import LabelWriter, relative


class YoloWriter(LabelWriter):
    """`labels/<name>.txt` for each image, `data.yaml`, and `classes.txt` with a name a line.

    A line is a box, or, of a model that finds no boxes, a polygon.
    """

    def __init__(self, output: str, info: ModelInfo, images: Sequence[str], stems: Sequence[str]):
        """
        Raises:
            InputError: two images have one name without the extension.
        """
        super().__init__(output, info, images, stems)
        for image, stem in zip(self.images, self.stems, strict=True):
            if os.path.splitext(os.path.basename(image))[0] != os.path.basename(stem):
                raise InputError(
                    f"YOLO names labels by an image's name without the extension, which {image} "
                    "shares with another image: rename one of them"
                )
        self._has_names = False
        self._has_boxes = "instances" in self.info.tasks
        self._names = (self.info.objects if self._has_boxes else self.info.pixels).names

    def targets(self) -> list[str]:
        return [
            *(self._target(i) for i in range(len(self.stems))),
            *(os.path.join(self.output, name) for name in ("data.yaml", "classes.txt")),
        ]

    def _target(self, number: int) -> str:
        return os.path.join(self.output, "labels", f"{self.stems[number]}.txt")

    def _write_names(self) -> None:
        root = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in self.images])
        folder = relative(root, self.output)
        content = {"train": folder, "val": folder, "names": dict(enumerate(self._names))}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_beside(os.path.join(self.output, "data.yaml"), text.encode())
        lines = "".join(f"{name}\n" for name in self._names)
        write_beside(os.path.join(self.output, "classes.txt"), lines.encode())

    def add(self, number: int, scene: Scene) -> None:
        """Write the file of an image, which is empty where nothing was found.

        With the first one, those that name the classes are written.
        """
        if not self._has_names:
            self._write_names()
            self._has_names = True
        assert scene.size is not None
        size = np.array(scene.size[::-1], float)
        lines = []
        if self._has_boxes:
            for box in self.boxes(scene):
                low, high = np.array(box.corners).reshape(2, 2) / size
                lines.append(_line(box.category, np.concatenate([(low + high) / 2, high - low])))
        else:
            for region in self.regions(scene):
                lines.append(_line(region.category, (region.corners / size).ravel()))
        write_beside(self._target(number), "".join(lines).encode())

    def end(self) -> None:
        """There is nothing to write."""


def _line(index: int, values: np.ndarray) -> str:
    # Of a million pixels, 8 digits are a hundredth of one.
    return " ".join([str(index), *(f"{value:.8f}" for value in values)]) + "\n"
