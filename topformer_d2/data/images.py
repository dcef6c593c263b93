"""Reading and writing images and label maps."""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import cv2
import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, printable
from ..files import check_regular_file, is_remote, write_beside
from ..logs import get_logger
from .image_files import READ_FORMATS, UNREADABLE, why_unread

logger = get_logger(__name__)

_WRITTEN_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# Formats, as Pillow names them, that do not keep the values of the pixels.
LOSSY_FORMATS = ("JPEG", "MPO")
# Formats of several images; the others of an MPO are a camera's, of the same scene.
_ANIMATED = ("GIF", "TIFF", "WEBP", "PNG", "AVIF")
# Formats whose channels may have 16 bits; OpenCV cuts them to 8 in others without a word.
_DEEP_EXTENSIONS = (".png", ".tif", ".tiff")
# The most pixels of an image that is read: where Pillow refuses by default. A small file can claim
# any number of them.
MAX_PIXELS = 2 * 89_478_485
# The longest side, whatever max_pixels is: Pillow counts the bits of a row in 31 bits, and reports
# more as a lack of memory. Whole numbers up to this one are exact in float32, which boxes have.
MAX_SIDE = 1 << 24
# While Pillow decodes an image and NumPy copies it.
_BYTES_PER_PIXEL = 10


@contextmanager
def opened_image(
    path: str, max_pixels: int, content: bytes | None = None
) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """A file and the image in it, of which the header is read and found to be acceptable.

    Where its content is given, the path is a name for messages.
    """
    if content is None and not is_remote(path):
        check_regular_file(path)
    size = ""
    try:
        file = PathManager.open(path, "rb") if content is None else io.BytesIO(content)
        with file as f, _open(f) as image:
            width, height = image.size
            size = f" ({width}x{height} pixels)"
            if trouble := _size_trouble(width, height, max_pixels):
                raise InputError(f"{path} has {trouble}")
            yield f, image
    except InputError:
        raise
    except MemoryError as e:
        raise InputError(f"{path} cannot be read: not enough memory{size}") from e
    except UNREADABLE as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        if isinstance(e, UnidentifiedImageError):
            reason = "it is not an image of a format that is read" + why_unread(path)
        raise InputError(f"{path} cannot be read: {reason or type(e).__name__}") from e


def _size_trouble(width: int, height: int, max_pixels: int) -> str | None:
    """What keeps an image of this size from being read, after "it has"; None = nothing."""
    if not width * height:
        return f"no pixels ({width}x{height})"
    if width * height > max_pixels:
        gigabytes = width * height * _BYTES_PER_PIXEL / 2**30
        return (
            f"{width}x{height} pixels, more than the {max_pixels} of `max_pixels`; to read it "
            f"takes about {gigabytes:.1f} GB of memory: scale it down, with its annotation"
        )
    if max(width, height) > MAX_SIDE:
        return (
            f"{width}x{height} pixels, and a side of an image may have {MAX_SIDE}: cut it into "
            "shorter ones"
        )
    return None


def _open(file: BinaryIO) -> Image.Image:
    """Image.open, which may be of more pixels than Pillow's limit for the whole process."""
    try:
        return Image.open(file, formats=READ_FORMATS)
    except Image.DecompressionBombError:
        file.seek(0)
        start = file.read(16)
        for name in READ_FORMATS:
            factory, accepts = Image.OPEN[name]
            if accepts is None or accepts(start) is True:
                file.seek(0)
                try:
                    return factory(file, "")
                except (SyntaxError, LookupError, TypeError, struct.error):
                    continue
        raise


def decode_image(content: bytes) -> Image.Image:
    """The image of a file's content, decoded to its end, which is where a cut-off one is found.

    Raises:
        one of UNREADABLE: it is not a whole image, or has more than MAX_PIXELS.
    """
    try:
        image = _open(io.BytesIO(content))
    except UnidentifiedImageError as e:
        raise ValueError("it is not an image of a format that is read") from e
    width, height = image.size
    if trouble := _size_trouble(width, height, MAX_PIXELS):
        raise ValueError(f"it has {trouble}")
    image.load()
    return image


@functools.cache
def _say_first_frame_alone(path: str, image_format: str) -> None:
    logger.warning("%s: of a %s of several images the first is read", printable(path), image_format)


def read_image(
    path: str | os.PathLike,
    image_format: str = "BGR",
    *,
    max_pixels: int = MAX_PIXELS,
    content: bytes | None = None,
) -> np.ndarray:
    """(H, W, 3) uint8, turned by its EXIF orientation, as Detectron2 reads it.

    Of an animation or a TIFF of several pages it is the first image.

    Args:
        path: of a file, not of a pipe or device.
        image_format: the order of the channels.
        max_pixels: an image of more is refused by its header, before memory is taken for it.
        content: of the file, where that is here already; None = it is read.

    Raises:
        InputError: it cannot be read, is too large or too long, or is grey with more than 8 bits:
            Pillow makes all that is above 255 white.
    """
    path = os.fspath(path)
    with opened_image(path, max_pixels, content) as (_, image):
        mode = image.mode
        if image.format in _ANIMATED and getattr(image, "is_animated", False):
            _say_first_frame_alone(path, image.format)
        if not mode.startswith(("I", "F")):
            return convert_PIL_to_numpy(ImageOps.exif_transpose(image), image_format)
    raise InputError(
        f"{path} has mode {mode!r}, grey with more than 8 bits: scale it to 0..255 and write it "
        "with 8"
    )


def read_label(path: str | os.PathLike) -> np.ndarray:
    """(H, W) uint8 ids of a label PNG.

    Raises:
        InputError: it cannot be read, is a JPEG by its content, or is not 8-bit single-channel. A
            palette PNG is refused because Detectron2 reads one as luminance, and one of fewer bits
            because Pillow scales its ids to 255; both make other ids of its own.
    """
    path = os.fspath(path)
    with opened_image(path, MAX_PIXELS) as (file, image):
        if image.format in LOSSY_FORMATS:
            raise InputError(
                f"{path} is a {image.format} file, whatever its name: that changes pixels near the "
                "borders to other classes. Write the label anew, as a PNG, from where it was drawn"
            )
        bits = _bit_depth_of_open(file)
        if image.mode == "L" and bits in (None, 8):
            return np.asarray(image)
        mode = image.mode
    what = f"mode {mode!r}" if bits in (None, 8) else f"mode {mode!r} and {bits} bits"
    fix = ""
    if mode in ("P", "PA"):
        fix = (
            ". Its indices become one by "
            "Image.fromarray(numpy.asarray(Image.open(path))).save(path)"
        )
    raise InputError(f"{path} has {what}; a label is an 8-bit single-channel PNG (mode 'L'){fix}")


def is_plain_label(path: str | os.PathLike) -> bool:
    """Whether read_label takes a file, by its header."""
    try:
        with opened_image(os.fspath(path), MAX_PIXELS) as (file, image):
            bits = _bit_depth_of_open(file)
            return image.format not in LOSSY_FORMATS and image.mode == "L" and bits in (None, 8)
    except InputError:
        return False


def _bit_depth_of_open(file: BinaryIO) -> int | None:
    """png_bit_depth of a file that Pillow is reading."""
    place = file.tell()
    file.seek(0)
    bits = png_bit_depth(file)
    file.seek(place)
    return bits


def png_bit_depth(file: BinaryIO) -> int | None:
    """Bits a channel of a PNG, None where it is none; the file is left at its start."""
    start = file.read(25)
    file.seek(0)
    return start[24] if start.startswith(b"\x89PNG\r\n\x1a\n") and len(start) == 25 else None


def check_image(image: np.ndarray) -> None:
    """Raise InputError where this is not an image in memory, (H, W, 3) uint8 with pixels."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise InputError(
            "an image is a NumPy array (H, W, 3) of uint8, BGR, with at least one pixel; this is "
            + (
                "None, which cv2.imread gives for a file that it cannot read"
                if image is None
                else type(image).__name__
                + ("" if shape is None else f" of shape {shape} and type {dtype}")
            )
        )


def check_image_name(path: str | os.PathLike) -> None:
    """Raise InputError where `path` has no image's extension."""
    if os.path.splitext(path)[1].lower() not in _WRITTEN_EXTENSIONS:
        raise InputError(f"{path}: the name of a picture ends in {', '.join(_WRITTEN_EXTENSIONS)}")


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write `image` (BGR, or a single-channel map) by its extension, beside it and renamed.

    The folder is made where it is missing.

    Args:
        path: ends in an image's extension.
        image: (H, W) or (H, W, 3) uint8; of a .png or .tif uint16, too.

    Raises:
        InputError: the extension is not an image's, or the format does not take this type or size.
    """
    write_beside(path, encode_image(path, image))


def encode_image(path: str | os.PathLike, image: np.ndarray) -> bytes:
    """The content of the file that write_image writes; the same arguments and errors."""
    check_image_name(path)
    extension = os.path.splitext(path)[1].lower()
    deep = image.dtype == np.uint16 and extension in _DEEP_EXTENSIONS
    if image.dtype != np.uint8 and not deep:
        raise InputError(
            f"{path}: an image of {image.dtype} is not written; it takes uint8, and uint16 as .png "
            "or .tif"
        )
    try:
        done, content = cv2.imencode(extension, image)
    except cv2.error:
        done = False
    if not done:
        height, width = image.shape[:2]
        raise InputError(
            f"{path}: {width}x{height} pixels cannot be written as {extension}; a .jpg has at most "
            "65500 a side, a .webp 16383"
        )
    return content.tobytes()
