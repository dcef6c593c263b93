"""COCO's JSON of objects, one of all images. Source: https://cocodataset.org/#format-data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ...data.scene import Scene
from ...files import write_json
from ..model_info import ModelInfo
from .base import LabelWriter, relative


class CocoWriter(LabelWriter):
    """`annotations.json`: a box or a region is an annotation; boxes have a score as well.

    A class has the model's category id where its boxes' classes have one and its pixels have none;
    else categories are numbered from 1, and a name that boxes and pixels share is one.
    """

    def __init__(self, output: str, info: ModelInfo, images: Sequence[str], stems: Sequence[str]):
        super().__init__(output, info, images, stems)
        objects, pixels = self.info.objects, self.info.pixels
        names = dict.fromkeys((*objects.names, *pixels.names))
        ids: Any = range(1, len(names) + 1)
        if objects.ids is not None and not pixels.names and len(names) == len(objects.ids):
            ids = objects.ids
        self._ids = dict(zip(names, ids, strict=True))
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._root = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in self.images])

    def targets(self) -> list[str]:
        return [os.path.join(self.output, "annotations.json")]

    def add(self, number: int, scene: Scene) -> None:
        """Keep what is in an image."""
        assert scene.size is not None
        height, width = scene.size
        name = relative(self.images[number], self._root)
        image = {"id": number + 1, "file_name": name, "width": width, "height": height}
        self._images.append(image)
        for box in self.boxes(scene):
            x0, y0, x1, y1 = box.corners
            self._annotate(
                image,
                self.info.objects.names[box.category],
                [x0, y0, x1 - x0, y1 - y0],
                area=(x1 - x0) * (y1 - y0),
                segmentation=[],
                score=box.score,
            )
        for region in self.regions(scene):
            low, high = region.corners.min(axis=0), region.corners.max(axis=0)
            self._annotate(
                image,
                self.info.pixels.names[region.category],
                [*low.tolist(), *(high - low).tolist()],
                area=float(cv2.contourArea(region.corners.astype(np.float32))),
                segmentation=[region.corners.ravel().tolist()],
            )

    def _annotate(self, image: dict, name: str, bbox: list[float], **more: Any) -> None:
        annotation = {
            "id": len(self._annotations) + 1,
            "image_id": image["id"],
            "category_id": self._ids[name],
            "bbox": bbox,
            "iscrowd": 0,
            **more,
        }
        self._annotations.append(annotation)

    def end(self) -> None:
        """Write the file, where there is an image."""
        if not self._images:
            return
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": key, "name": name} for name, key in self._ids.items()],
        }
        write_json(self.targets()[0], content)
