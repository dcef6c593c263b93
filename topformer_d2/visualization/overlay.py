"""A label map drawn over its image, with a legend of the classes that it holds."""

from __future__ import annotations

import functools
import os

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont


@functools.cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings, in pixels; Pillow's own font has no accents."""
    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size)


def blend_labels(
    image: np.ndarray, label: np.ndarray, colors: np.ndarray, opacity: float = 0.55
) -> np.ndarray:
    """Tint each labelled pixel with its class's colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) integers; values without a colour (the ignored one) leave the pixel as it is.
        colors: (K, 3) uint8 RGB.
        opacity: of the tint, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    tint = np.take(colors, label, axis=0, mode="clip")
    out = cv2.addWeighted(tint, opacity, image, 1 - opacity, 0)
    return cv2.copyTo(image, (label >= len(colors)).astype(np.uint8), out)


def add_legend(
    picture: np.ndarray, label: np.ndarray, names: list[str], colors: np.ndarray
) -> np.ndarray:
    """Put a column to the right of `picture` that names the classes present, most pixels first.

    Args:
        picture: (H, W, 3) uint8 RGB.
        label: integers of any shape.
        names, colors: of the classes, as from class_styles.

    Returns:
        (H, W + column, 3) uint8 RGB; as many classes as fit the height.
    """
    height = picture.shape[0]
    text_size = int(np.clip(height / 28, 10, 28))
    row = int(text_size * 1.5)
    font = text_font(text_size)
    counts = np.bincount(label.reshape(-1), minlength=len(names))[: len(names)]
    present = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    fitting = max(1, (height - row // 2) // row)
    if len(present) > fitting:
        lines = [(names[i], colors[i]) for i in present[: fitting - 1]]
        lines.append((f"+ {len(present) - len(lines)} more", None))
    else:
        lines = [(names[i], colors[i]) for i in present]
    width = row + 3 * text_size // 2 + int(max((font.getlength(t) for t, _ in lines), default=0))
    column = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(column)
    for n, (text, color) in enumerate(lines):
        top = row // 4 + n * row
        if color is not None:
            draw.rectangle([row // 4, top, row // 4 + text_size, top + text_size], fill=(*color,))
        draw.text((row // 2 + text_size, top - text_size // 8), text, fill="black", font=font)
    return np.concatenate([picture, np.asarray(column)], axis=1)
