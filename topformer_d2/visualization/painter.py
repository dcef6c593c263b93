"""Drawing scenes: labels and boxes over an image."""

from __future__ import annotations

import colorsys
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode, configurable
from PIL import Image, ImageDraw

from ..data.class_table import ClassTable, DatasetClasses
from ..data.scene import Scene
from ..inference.model_info import ModelInfo
from .overlay import add_legend, blend_labels, text_font


class Painter:
    """Draws scenes in the names and colours of the classes of a model or a dataset."""

    @configurable
    def __init__(self, info: ModelInfo | DatasetClasses):
        """
        Args:
            info: of the model, or of a dataset; its tasks, classes and their colours are used.
        """
        self.info = info
        self.tasks = info.tasks
        self._pixels, self._objects = _styles(info.pixels), _styles(info.objects)

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str | None = None) -> dict[str, Any]:
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

    The box of an object that is tracked has its number and a colour of its own.

    By OpenCV and Pillow: Detectron2's Visualizer takes several times what a prediction does.

    Args:
        image: (H, W, 3) uint8 RGB.
        scene: its boxes, classes and scores are drawn.
        names: of the classes, as from class_styles.
        colors: (K, 3) uint8 RGB of the classes, as from class_styles.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if len(scene.boxes) == 0:
        return image
    out = np.array(image, order="C")
    height, width = out.shape[:2]
    scale = np.sqrt(height * width)
    line, text_size = max(1, round(scale / 400)), max(11, int(scale / 70))
    # A box that ends at the border has its edge on the last pixel.
    corners = scene.boxes.round().clip(0, [width - 1, height - 1] * 2).astype(int).tolist()
    areas = (scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(axis=1)
    order = np.argsort(-areas, kind="stable")  # the small ones last, over the large
    tracks = np.zeros(len(corners), np.int64) if scene.tracks is None else scene.tracks
    own = [
        _track_color(int(track)) if track > 0 else colors[category]
        for track, category in zip(tracks, scene.classes, strict=True)
    ]
    for i in order:
        cv2.rectangle(out, corners[i][:2], corners[i][2:], own[i].tolist(), line)
    for i in order:
        text = names[scene.classes[i]]
        if scene.scores is not None:
            text += f" {scene.scores[i]:.0%}"
        if tracks[i] > 0:
            text = f"#{tracks[i]} {text}"
        tag = _tag(text, own[i], text_size)[:height, :width]
        tag_height, tag_width = tag.shape[:2]
        # Above the box, but within the picture.
        x, y = min(corners[i][0], width - tag_width), max(0, corners[i][1] - tag_height)
        out[y : y + tag_height, x : x + tag_width] = tag
    return out


def _track_color(number: int) -> np.ndarray:
    """(3,) uint8 RGB of a tracked object, the same in all frames; neighbours in number differ."""
    hue = number * 0.618034 % 1  # the golden ratio
    return (
        np.array([255 * c for c in colorsys.hsv_to_rgb(hue, 0.75, 0.95)]).round().astype(np.uint8)
    )


def _tag(text: str, color: np.ndarray, text_size: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB: a text in black or white on `color`."""
    font = text_font(text_size, text)
    ascent, descent = font.getmetrics()
    size = (round(font.getlength(text)) + ascent // 2, ascent + descent)
    tag = Image.new("RGB", size, (*color,))
    is_light = color @ np.array([0.299, 0.587, 0.114]) > 128
    place, fill = (ascent // 4, 0), "black" if is_light else "white"
    ImageDraw.Draw(tag).text(place, text, fill=fill, font=font)
    return np.asarray(tag)
