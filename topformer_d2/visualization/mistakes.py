"""Pictures of what a model gets wrong: error maps, crops, and thumbnails of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ..data.scene import Scene
from .overlay import text_font
from .painter import Painter

# Okabe and Ito's colours, which people with colour blindness can tell apart.
RIGHT, WRONG, MISSED = (0, 158, 115), (213, 94, 0), (0, 114, 178)
# Pixels of the longer side of a crop, and how far it is enlarged at most.
_CROP, _MOST_ENLARGED = 180, 4


def pixel_errors(
    image: np.ndarray, prediction: np.ndarray, truth: np.ndarray, ignore_label: int
) -> np.ndarray:
    """The image in grey, with wrong pixels in orange and those that the truth ignores in black.

    Args:
        image: (H, W, 3) uint8 RGB.
        prediction, truth: (H, W) integers.
        ignore_label: of the truth.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    out = np.repeat((grey // 2 + 96)[:, :, None], 3, axis=2)
    ignored = truth == ignore_label
    wrong = (prediction != truth) & ~ignored
    out[wrong] = (0.3 * out[wrong] + 0.7 * np.array(WRONG)).astype(np.uint8)
    out[ignored] = out[ignored] // 4
    return out


def box_errors(
    image: np.ndarray, found: np.ndarray, right: np.ndarray, missed: np.ndarray
) -> np.ndarray:
    """The image with right boxes in green, wrong ones in orange and missed objects in blue.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: (n, 4) detections; x0, y0, x1, y1 in pixels.
        right: (n,) bool.
        missed: (m, 4) objects that were not found.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    out = np.array(image, order="C")
    line = max(1, round(np.sqrt(image.shape[0] * image.shape[1]) / 250))
    for boxes, color in ((found[right], RIGHT), (found[~right], WRONG), (missed, MISSED)):
        for x0, y0, x1, y1 in np.round(boxes).astype(int).tolist():
            cv2.rectangle(out, (x0, y0), (x1, y1), color, line)
    return out


def crop(
    painter: Painter,
    image: np.ndarray,
    frame: tuple[int, int, int, int],
    box: Sequence[float],
    scenes: Sequence[Scene],
) -> np.ndarray:
    """A part of an image, enlarged where it is small, and beside it the same with each scene.

    Args:
        painter: in whose colours the scenes are drawn.
        image: (H, W, 3) uint8 RGB.
        frame: x0, y0, x1, y1 of the part, within the image.
        box: x0, y0, x1, y1 of what is outlined in the first picture.
        scenes: of the part, in its pixels.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    x0, y0, x1, y1 = frame
    factor = min(_MOST_ENLARGED, _CROP / max(x1 - x0, y1 - y0))
    size = max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    part = cv2.resize(np.ascontiguousarray(image[y0:y1, x0:x1]), size, interpolation=method)
    panes = [painter.draw(part, _scaled(scene, factor, size), 0.6) for scene in scenes]
    gap = np.full((size[1], 4, 3), 255, np.uint8)
    row = [outlined(part, (np.array(box) - [x0, y0, x0, y0]) * factor)]
    for pane in panes:
        row += [gap, pane]
    return np.concatenate(row, axis=1)


def outlined(picture: np.ndarray, box: Sequence[float] | np.ndarray) -> np.ndarray:
    """A copy of a picture (H, W, 3) uint8 RGB with a box x0, y0, x1, y1 in orange."""
    out = np.array(picture, order="C")
    corners = np.round(np.asarray(box, np.float64)).astype(int).tolist()
    cv2.rectangle(out, corners[:2], corners[2:], WRONG, 2)
    return out


def _scaled(scene: Scene, factor: float, size: tuple[int, int]) -> Scene:
    """A scene for its image resized to (width, height)."""
    label = scene.label
    if label is not None:
        label = cv2.resize(label.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    return replace(scene, label=label, boxes=scene.boxes * factor, size=size[::-1])


def shrunk(picture: np.ndarray, longest: int) -> np.ndarray:
    """A picture (H, W, 3) whose longer side is at most `longest` pixels."""
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = [max(1, round(side * factor)) for side in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB with a line of text below; what does not fit is cut off."""
    font = text_font(13, text)
    strip = Image.new("RGB", (picture.shape[1], 20), "white")
    ImageDraw.Draw(strip).text((2, 1), text, fill="black", font=font)
    return np.concatenate([picture, np.asarray(strip)], axis=0)


def jpeg(picture: np.ndarray, quality: int = 80) -> bytes:
    """A picture (H, W, 3) uint8 RGB as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", np.ascontiguousarray(picture[:, :, ::-1]), options)[1].tobytes()
