"""LabelMe's JSON files, one an image.

Source: labelme/_label_file.py of https://github.com/wkentaro/labelme, version 5.
"""

from __future__ import annotations

import os
from typing import Any

from ...data.scene import Scene
from ...files import write_json
from .base import LabelWriter, relative

_VERSION = "5.5.0"


class LabelMeWriter(LabelWriter):
    """`labels/<name>.json` for each image: rectangles of boxes, polygons of regions."""

    def targets(self) -> list[str]:
        return [self._target(i) for i in range(len(self.stems))]

    def _target(self, number: int) -> str:
        return os.path.join(self.output, "labels", f"{self.stems[number]}.json")

    def add(self, number: int, scene: Scene) -> None:
        """Write the file of an image."""
        assert scene.size is not None
        target = self._target(number)
        names = self.info.objects.names
        # A rectangle would cover the regions.
        shapes = [
            _shape(names[box.category], "rectangle", [[x0, y0], [x1, y1]], score=box.score)
            for box in self.boxes(scene)
            for x0, y0, x1, y1 in [box.corners]
        ]
        shapes += [
            _shape(self.info.pixels.names[region.category], "polygon", region.corners.tolist())
            for region in self.regions(scene)
        ]
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": relative(self.images[number], os.path.dirname(target)),
            "imageData": None,
            "imageHeight": scene.size[0],
            "imageWidth": scene.size[1],
        }
        write_json(target, content, indent=2)

    def end(self) -> None:
        """There is nothing to write."""


def _shape(label: str, kind: str, points: list, **more: float) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        **more,
    }
