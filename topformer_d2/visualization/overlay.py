"""A label map drawn over its image, with a legend of the classes that it holds."""

from __future__ import annotations

import functools
import os

import cv2
import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from ..errors import printable
from ..logs import get_logger

logger = get_logger(__name__)


@functools.lru_cache(maxsize=4096)
def text_font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """A font, in pixels, that has the characters of `text`.

    DejaVu Sans, which Matplotlib brings, where it has them, as of Latin, Greek and Cyrillic; else
    one that is installed; where none has them, a warning in the log says so once.
    """
    missing = frozenset(map(ord, text)) - _characters(_DEJAVU)
    return _font(_font_with(missing) if missing else _DEJAVU, size)


_DEJAVU = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """The codes that a font file has a picture for; none where it cannot be used."""
    try:
        # Matplotlib reads the table, and Pillow must be able to draw with it at any size.
        _font(path, 16)
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def _installed_fonts() -> tuple[str, ...]:
    """Files of the system's fonts, regular and sans serif ones first.

    Without the "last resort" one that Matplotlib brings, which has a box for every character.
    """
    files = font_manager.findSystemFonts()
    return tuple(sorted(files, key=lambda f: ("Sans" not in f, "Regular" not in f, f)))


@functools.cache
def _font_with(codes: frozenset[int]) -> str:
    """The first installed font with these characters and the digits of a score, or DejaVu Sans."""
    needed = codes | set(map(ord, "0123456789% "))
    for path in _installed_fonts():
        if needed <= _characters(path):
            return path
    _warn_once("".join(map(chr, sorted(codes)[:5])))
    return _DEJAVU


_warned: list[str] = []


def _warn_once(sample: str) -> None:
    if not _warned:
        _warned.append(sample)
        logger.warning(
            "no installed font has the characters %s of class names, which are drawn as boxes: "
            "install one, such as Noto Sans CJK (Debian and Ubuntu: fonts-noto-cjk)",
            printable(sample),
        )


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
        names: of the classes, as from class_styles.
        colors: (K, 3) uint8 RGB of the classes, as from class_styles.

    Returns:
        (H, W + column, 3) uint8 RGB; as many classes as fit the height.
    """
    height = picture.shape[0]
    text_size = int(np.clip(height / 28, 10, 28))
    row = int(text_size * 1.5)
    counts = np.bincount(label.reshape(-1), minlength=len(names))[: len(names)]
    present = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    fitting = max(1, (height - row // 2) // row)
    if len(present) > fitting:
        lines = [(names[i], colors[i]) for i in present[: fitting - 1]]
        lines.append((f"+ {len(present) - len(lines)} more", None))
    else:
        lines = [(names[i], colors[i]) for i in present]
    fonts = [text_font(text_size, text) for text, _ in lines]
    longest = max((f.getlength(t) for f, (t, _) in zip(fonts, lines, strict=True)), default=0)
    width = row + 3 * text_size // 2 + int(longest)
    column = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(column)
    for n, ((text, color), font) in enumerate(zip(lines, fonts, strict=True)):
        top = row // 4 + n * row
        if color is not None:
            draw.rectangle([row // 4, top, row // 4 + text_size, top + text_size], fill=(*color,))
        draw.text((row // 2 + text_size, top - text_size // 8), text, fill="black", font=font)
    return np.concatenate([picture, np.asarray(column)], axis=1)
