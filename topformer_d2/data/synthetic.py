"""A small generated dataset: textured shapes on a textured ground.

Each image has pixel labels and boxes, and everything follows from the seed, so that the demo, the
tests and bug reports need no download.
"""

from __future__ import annotations

import colorsys
import json
import os

import cv2
import numpy as np

from ..errors import InputError
from ..files import folder_beside, locked_output
from .categories import Categories
from .images import write_image

SHAPES = ("disc", "square", "triangle", "cross", "ring")
SYNTHETIC_CATEGORIES = Categories(
    names=("ground", *SHAPES),
    colors=(
        (90, 90, 90),
        (230, 80, 60),
        (70, 130, 220),
        (90, 190, 80),
        (240, 190, 50),
        (160, 90, 200),
    ),
    source_ids=tuple(range(len(SHAPES) + 1)),
    ignore_label=255,
)
# The same classes as objects with boxes: category ids 1 to 5, and no ground.
SYNTHETIC_OBJECTS = Categories(
    names=SHAPES,
    colors=SYNTHETIC_CATEGORIES.colors[1:],
    source_ids=SYNTHETIC_CATEGORIES.source_ids[1:],
)


def make_texture(rng: np.random.Generator, height: int, width: int, kind: int) -> np.ndarray:
    """A texture (height, width, 3) uint8: stripes whose hue and period follow `kind`.

    Angle, phase, brightness and noise are random, and so is the ground's (kind 0) hue, which is
    pale; flipping a texture keeps its kind.
    """
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    period = 6.0 + (kind * 3) % 11 + rng.normal(0, 0.3)
    blend = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase)
    hue = rng.uniform() if kind == 0 else kind * 0.618034 + rng.normal(0, 0.03)
    saturation = rng.uniform(0.05, 0.3) if kind == 0 else rng.uniform(0.45, 0.85)
    dark = colorsys.hsv_to_rgb(hue % 1, saturation, rng.uniform(0.25, 0.5))
    light = colorsys.hsv_to_rgb(hue % 1, saturation * 0.8, rng.uniform(0.6, 0.95))
    texture = np.array(dark) + (np.array(light) - dark) * blend[..., None]
    noise = rng.normal(0, 0.04, (height, width, 3))
    return (255 * (texture + noise)).clip(0, 255).astype(np.uint8)


def draw_shape(
    size: tuple[int, int], kind: int, center: np.ndarray, radius: float, angle: float
) -> np.ndarray:
    """Mask (height, width) bool of the shape SHAPES[kind], turned by `angle` radians."""
    mask = np.zeros(size, np.uint8)
    middle = tuple(round(c) for c in center)
    shape = SHAPES[kind]
    if shape in ("disc", "ring"):
        cv2.circle(mask, middle, int(radius), 1, -1)
        if shape == "ring":
            cv2.circle(mask, middle, int(radius * 0.55), 0, -1)
        return mask.astype(bool)
    corners = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        "cross": [
            *((-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35)),
            *((0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35)),
        ],
    }[shape]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array(corners) @ turn.T * radius * 0.9 + np.array(center)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask.astype(bool)


def make_sample(
    seed: int, height: int = 128, width: int = 160
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, float, float, float, float]]]:
    """One image with its labels and boxes.

    Returns:
        image: (height, width, 3) uint8, RGB.
        label: (height, width) uint8, indices into SYNTHETIC_CATEGORIES.
        boxes: [(class index, x0, y0, x1, y1)] of the visible part of each shape, in pixels.
    """
    rng = np.random.default_rng(seed)
    image = make_texture(rng, height, width, kind=0)
    instance = np.zeros((height, width), np.uint8)
    classes = []
    for i in range(1, int(rng.integers(2, 6)) + 1):
        kind = int(rng.integers(len(SHAPES)))
        center = rng.uniform((0, 0), (width, height))
        radius = rng.uniform(0.16, 0.34) * min(height, width)
        mask = draw_shape((height, width), kind, center, radius, rng.uniform(0, 2 * np.pi))
        image[mask] = make_texture(rng, height, width, kind + 1)[mask]
        instance[mask] = i
        classes.append(kind + 1)
    label = np.array([0, *classes], np.uint8)[instance]
    boxes: list[tuple[int, float, float, float, float]] = []
    for i, category in enumerate(classes, start=1):
        ys, xs = np.nonzero(instance == i)
        if len(xs) >= 16:  # what other shapes cover almost wholly is no object
            boxes.append(
                (category, int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
            )
    return image, label, boxes


def write_synthetic(
    root: str,
    num_train: int = 400,
    num_val: int = 80,
    seed: int = 0,
    size: tuple[int, int] = (128, 160),
) -> str:
    """Write the dataset below `root`/synthetic unless it is there, and return that folder.

    Layout: images/{train,val}/*.png, annotations_detectron2/{train,val}/*.png (labels), and
    annotations/instances_{train,val}.json (boxes in COCO's format, category ids from 1).

    Args:
        root: a folder, usually DETECTRON2_DATASETS.
        num_train, num_val: images of each split.
        seed: the same seed gives the same files.
        size: (height, width) of the images.

    Raises:
        InputError: the folder holds a dataset made with other numbers.
    """
    folder = os.path.join(root, "synthetic")
    settings = {"num_train": num_train, "num_val": num_val, "seed": seed, "size": list(size)}
    marker = os.path.join(folder, "settings.json")
    if os.path.isfile(marker):
        with open(marker, encoding="utf-8") as f:
            made = json.load(f)
        if made != settings:
            raise InputError(f"{folder} was made with {made}, not {settings}: delete it first")
        return folder
    if os.path.isdir(folder):
        raise InputError(f"{folder} is there but was not made so: move it away")
    # The lock is the root's, for the folder appears only when it is whole.
    with locked_output(root, "making the synthetic dataset"), folder_beside(folder) as beside:
        partial = str(beside / "synthetic")
        for split, first, count in (("train", 0, num_train), ("val", num_train, num_val)):
            _write_split(partial, split, range(first, first + count), seed, size)
        with open(os.path.join(partial, "settings.json"), "w", encoding="utf-8") as f:
            json.dump(settings, f)
        if os.path.isdir(folder):  # made since by another process
            return write_synthetic(root, num_train, num_val, seed, size)
        os.replace(partial, folder)
    return folder


def _write_split(folder: str, split: str, indices: range, seed: int, size: tuple[int, int]) -> None:
    image_dir = os.path.join(folder, "images", split)
    label_dir = os.path.join(folder, "annotations_detectron2", split)
    json_dir = os.path.join(folder, "annotations")
    os.makedirs(json_dir, exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for index in indices:
        image, label, boxes = make_sample(seed * 1_000_003 + index, *size)
        name = f"{index:05d}.png"
        write_image(os.path.join(image_dir, name), image[:, :, ::-1])
        write_image(os.path.join(label_dir, name), label)
        images.append({"id": index, "file_name": name, "height": size[0], "width": size[1]})
        for category, x0, y0, x1, y1 in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": category,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(SHAPES)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    with open(os.path.join(json_dir, f"instances_{split}.json"), "w", encoding="utf-8") as f:
        json.dump(coco, f)


# Levels of red, green and blue, which give each kind of make_textures a colour of its own.
_LEVELS = (5, 6, 5)
NUM_TEXTURES = 150


def make_textures(
    seed: int, height: int, width: int, regions: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """An image of many classes: each of its regions has one of NUM_TEXTURES textures.

    A texture is noise and faint stripes, of any angle and period, around its kind's colour.

    Returns:
        image: (height, width, 3) uint8, RGB.
        label: (height, width) int64, the kind of each pixel.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centers = rng.uniform((0, 0), (height, width), (regions, 2))
    region = np.argmin([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centers], axis=0)
    kinds = rng.integers(NUM_TEXTURES, size=regions)
    colors = np.stack(np.unravel_index(kinds, _LEVELS), axis=1) / (np.array(_LEVELS) - 1)
    angles, periods = rng.uniform(0, np.pi, regions), rng.uniform(4, 16, regions)
    wave = np.cos(angles)[region] * x + np.sin(angles)[region] * y
    stripes = np.sin(2 * np.pi * wave / periods[region])[..., None]
    image = 20 + 215 * colors[region] + 8 * stripes + rng.normal(0, 8, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), kinds[region]
