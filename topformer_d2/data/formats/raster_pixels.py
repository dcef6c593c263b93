"""The values of the pixels of label images, whatever their bit depth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ...errors import InputError
from ..images import LOSSY_FORMATS, MAX_PIXELS, opened_image, png_bit_depth

LARGEST_VALUE = 2**24 - 1
# Formats, as Pillow names them, that keep the values of the pixels.
_LOSSLESS = ("PNG", "BMP", "DIB", "TIFF", "GIF")
_GREY = 0x010101  # red, green and blue of 1
# Tags of a TIFF.
_BITS, _PHOTOMETRIC = 258, 262
_LOSSY_TIFFS = ("jpeg", "tiff_jpeg", "webp")
# Of an image that is looked at to tell its kind: about this many pixels are counted.
_LOOKED_AT = 500_000


def read_values(path: str) -> np.ndarray:
    """(H, W) integers, 0 to LARGEST_VALUE: what a label image stores for each pixel.

    It is the index of a palette PNG, and what an RGB image has in all three channels. Of fewer than
    8 bits, it is the stored number, which Pillow scales to 255.

    Raises:
        InputError: the file cannot be read, is a JPEG, has colours, or has numbers that are not
            whole, negative or above LARGEST_VALUE.
    """
    with _opened(path) as (image, bits):
        return _values(image, bits, path)


def read_colors(path: str) -> np.ndarray:
    """(H, W) integers: red * 65536 + green * 256 + blue of each pixel, without its alpha.

    Raises:
        InputError: the file cannot be read, is a JPEG, or has more than 8 bits a channel.
    """
    with _opened(path) as (image, bits):
        return _colors(image, bits, path)


def read_mask(path: str) -> np.ndarray:
    """(H, W) bool: the pixels of an image that are not 0, or black.

    Raises:
        InputError: as read_colors; any depth of grey is taken.
    """
    with _opened(path) as (image, bits):
        has_colors = image.mode.startswith(("RGB", "P"))
        values = _colors(image, bits, path) if has_colors else _samples(image, bits, path)
        return values != 0


def read_palette(path: str) -> list[tuple[int, int, int]] | None:
    """(red, green, blue) of each index of a palette image, by its header; None where it is none.

    Raises:
        InputError: the file cannot be read.
    """
    with _opened(path) as (image, _):
        if image.mode not in ("P", "PA"):
            return None
        numbers = image.getpalette("RGB") or []
        return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


class Look(NamedTuple):
    """What one label image is like.

    Attributes:
        mode: "L", "P" or "RGB": grey of any depth, with a palette, or colours.
        has_colors: of "RGB": some pixel has other than three equal numbers.
        distinct: how many values there are, of about half a million pixels.
        is_binary: all pixels are 0 (black) or one other value.
    """

    mode: str
    has_colors: bool
    distinct: int
    is_binary: bool


def look_at(paths: Sequence[str]) -> list[Look]:
    """What label images are like; those that cannot be read are left out.

    Returns:
        one for each that can; none where more than half of them cannot.
    """
    looks = []
    for path in paths:
        with contextlib.suppress(InputError):
            looks.append(_look_at(path))
    return looks if 2 * len(looks) >= len(paths) else []


def _look_at(path: str) -> Look:
    with _opened(path) as (image, bits):
        mode = image.mode[: 3 if image.mode.startswith("RGB") else 1]
        values = _colors(image, bits, path) if mode in ("RGB", "P") else _values(image, bits, path)
    has_colors = mode == "RGB" and not _is_grey(values)
    step = max(1, round((values.size / _LOOKED_AT) ** 0.5))
    is_binary = bool(((values == 0) | (values == values.max())).all())
    distinct = len(np.unique(values[::step, ::step]))
    return Look(mode if mode in ("RGB", "P") else "L", has_colors, distinct, is_binary)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[Image.Image, int | None]]:
    """A label image of which the header is read, and its bits a channel where they are known."""
    with opened_image(path, MAX_PIXELS) as (file, image):
        if image.format in LOSSY_FORMATS or image.info.get("compression") in _LOSSY_TIFFS:
            raise InputError(
                f"{path} is compressed as a JPEG is, whatever its name: that changes pixels near "
                "the borders to other classes. Write the label anew, as a PNG, from where it was "
                "drawn"
            )
        if image.format not in _LOSSLESS:
            raise InputError(f"{path} is a {image.format} file: write the label as a PNG")
        if image.format == "TIFF":
            tags = getattr(image, "tag_v2", {})
            if tags.get(_PHOTOMETRIC) == 0 and image.mode != "1":
                raise InputError(
                    f"{path} is a TIFF in which 0 is white, so what its numbers mean is not "
                    "certain: write the label as a PNG"
                )
            bits = max(tags.get(_BITS, (8,)))
        else:
            place = file.tell()
            file.seek(0)
            bits = png_bit_depth(file)
            file.seek(place)
        yield image, bits


def _values(image: Image.Image, bits: int | None, path: str) -> np.ndarray:
    if image.mode.startswith("RGB"):
        colors = _colors(image, bits, path)
        if not _is_grey(colors):
            y, x = np.argwhere((colors & 0xFF) * _GREY != colors)[0].tolist()
            raise InputError(
                f"{path} has colours, such as {unpack(int(colors[y, x]))} at x {x}, y {y}, and is "
                "read as an image of indices: set FORMAT: colour_masks"
            )
        return (colors & 0xFF).astype(np.uint8)
    values = _samples(image, bits, path)
    if image.mode == "1":
        return values.view(np.uint8) & 1  # Pillow's True is 255 in memory
    if image.mode == "L" and bits in (2, 4):
        return values // np.uint8(255 // (2**bits - 1))
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise InputError(
                f"{path} has numbers that are not whole; a label image has the number of a class "
                "at each pixel"
            )
        values = values.astype(np.int64)
    if values.dtype.itemsize > 2:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > LARGEST_VALUE:
            raise InputError(
                f"{path} has values from {low} to {high}; they are from 0 to {LARGEST_VALUE}"
            )
        return values.astype(np.int32)
    return values


def _samples(image: Image.Image, bits: int | None, path: str) -> np.ndarray:
    """(H, W), as Pillow has it, of an image of one channel, without its alpha."""
    if image.mode in ("LA", "PA"):
        _refuse_deep(image, bits, path)
        return np.asarray(image.getchannel(0))
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if image.mode in ("1", "L", "P", "I", "F"):
        return np.asarray(image)
    raise InputError(
        f"{path} has mode {image.mode!r}: write the label as a PNG, grey, with a palette or RGB"
    )


def _refuse_deep(image: Image.Image, bits: int | None, path: str) -> None:
    if bits is not None and bits > 8:
        raise InputError(
            f"{path} has {bits} bits a channel and mode {image.mode!r}, of which 8 would be left: "
            "write it with 8 bits, or the classes' numbers as a grey PNG of 8 or 16"
        )


def _colors(image: Image.Image, bits: int | None, path: str) -> np.ndarray:
    if image.mode.startswith("RGB"):
        _refuse_deep(image, bits, path)
        pixels = np.asarray(image)
        code = cv2.COLOR_RGB2BGRA if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        # Blue comes first in memory, so that it is the lowest byte of a little-endian number.
        packed = cv2.cvtColor(pixels, code).view("<i4")[..., 0]
        packed &= 0xFFFFFF
        return packed
    values = _samples(image, bits, path)
    if image.mode in ("P", "PA"):
        numbers = np.array(image.getpalette("RGB") or [], np.int32).reshape(-1, 3)
        if values.max() >= len(numbers):
            raise InputError(
                f"{path} has the index {values.max()}, and its palette {len(numbers)} colours"
            )
        return (numbers @ np.array([65536, 256, 1], np.int32))[values]
    if image.mode == "1":
        return np.where(values, np.int32(255 * _GREY), np.int32(0))
    if values.dtype != np.uint8:
        raise InputError(
            f"{path} is grey with more than 8 bits, and is read as an image of colours: set "
            "FORMAT: index_masks"
        )
    return values * np.int32(_GREY)


def _is_grey(colors: np.ndarray) -> bool:
    return bool(((colors & 0xFF) * _GREY == colors).all())


def pack(color: tuple[int, int, int]) -> int:
    """The value of a pixel of this (red, green, blue)."""
    red, green, blue = color
    return red * 65536 + green * 256 + blue


def unpack(value: int) -> tuple[int, int, int]:
    """The (red, green, blue) of a value."""
    return value >> 16, value >> 8 & 0xFF, value & 0xFF
