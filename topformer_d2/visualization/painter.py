"""Pictures of what is in an image."""

from __future__ import annotations

import numpy as np
from detectron2.config import configurable
from detectron2.utils.visualizer import Visualizer

from ..inference.model_info import ClassTable, ModelInfo
from ..inference.scene import Scene
from .overlay import add_legend, blend_labels


class Painter:
    """Draws scenes in the names and colours of a model's classes."""

    @configurable
    def __init__(self, info: ModelInfo):
        """
        Args:
            info: of the model; its tasks, classes and their colours are used.
        """
        self.info = info
        self.tasks = info.tasks
        self._pixels, self._objects = _styles(info.pixels), _styles(info.objects)

    @classmethod
    def from_config(cls, cfg, dataset_name: str | None = None):
        """Of a config's model; in the colours of `dataset_name`, then of DATASETS.TEST."""
        return {"info": ModelInfo.from_config(cfg, dataset_name)}

    def draw(self, image: np.ndarray, scene: Scene, opacity: float = 0.55) -> np.ndarray:
        """Tint `image` (H, W, 3) uint8 RGB by the labels, and draw named boxes over it."""
        if scene.label is not None:
            image = blend_labels(image, scene.label, self._pixels[1], opacity)
        return draw_boxes(image, scene, *self._objects)

    def add_legend(self, picture: np.ndarray, *scenes: Scene) -> np.ndarray:
        """Name the labels of `scenes` beside `picture`; boxes bear their names."""
        labels = [scene.label.reshape(-1) for scene in scenes if scene.label is not None]
        return add_legend(picture, np.concatenate(labels), *self._pixels) if labels else picture


def _styles(classes: ClassTable) -> tuple[list[str], np.ndarray]:
    """Names, and colours (K, 3) uint8 RGB."""
    return list(classes.names), np.array(classes.colors, np.uint8).reshape(-1, 3)


def draw_boxes(image: np.ndarray, scene: Scene, names: list[str], colors: np.ndarray) -> np.ndarray:
    """Draw the scene's boxes, each with its class's name and, where it has one, its score.

    By Detectron2's Visualizer, whose own draw_instance_predictions takes no colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        scene: its boxes, classes and scores are drawn.
        names, colors: of the classes, as from class_styles.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if len(scene.boxes) == 0:
        return image
    # Visualizer sets a pair of dollars as mathematics.
    labels = [names[c].replace("$", r"\$") for c in scene.classes]
    if scene.scores is not None:
        labels = [f"{n} {score:.0%}" for n, score in zip(labels, scene.scores, strict=True)]
    drawing = Visualizer(image).overlay_instances(
        boxes=scene.boxes,
        labels=labels,
        assigned_colors=[colors[c] / 255 for c in scene.classes],
        alpha=1.0,
    )
    return np.ascontiguousarray(drawing.get_image())
