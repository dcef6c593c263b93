"""Finding, reading and writing images and label maps."""

from __future__ import annotations

import glob
import os
from typing import BinaryIO

import cv2
import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps

from ..errors import InputError
from ..files import write_beside

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# What Pillow raises for a file that is no image, is cut off, or claims to be enormous.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
# Formats, as Pillow names them, that do not keep the values of the pixels.
LOSSY_FORMATS = ("JPEG", "MPO")
# Formats whose channels may have 16 bits; OpenCV cuts them to 8 in others without a word.
_DEEP_EXTENSIONS = (".png", ".tif", ".tiff")


def has_extension(name: str, *extensions: str) -> bool:
    """Whether a file is named so, in any case; hidden files, such as macOS's "._x.png", never are.

    Args:
        name: without its folder.
        extensions: such as ".png"; none = those of images.
    """
    extension = os.path.splitext(name)[1].lower()
    return name[0] != "." and extension in (extensions or IMAGE_EXTENSIONS)


def list_images(source: str, option: str = "") -> list[str]:
    """The image files that `source` names: a file, a folder (not its subfolders) or a glob.

    Args:
        source: as the user gave it.
        option: of a tool by which it was given, for the message.

    Raises:
        InputError: there are none.
    """
    if os.path.isdir(source):
        found = sorted(
            os.path.join(source, name) for name in os.listdir(source) if has_extension(name)
        )
    elif os.path.isfile(source):
        found = [source]
    else:
        found = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not found:
        raise InputError(f"{option} {source}: no image there (a file, a folder or a glob)".lstrip())
    return found


def read_image(path: str, image_format: str = "BGR") -> np.ndarray:
    """(H, W, 3) uint8, turned by its EXIF orientation, as Detectron2 reads it.

    Raises:
        InputError: it cannot be read, or is grey with more than 8 bits: Pillow makes all that is
            above 255 white.
    """
    try:
        with PathManager.open(path, "rb") as f, Image.open(f) as image:
            mode = image.mode
            if not mode.startswith(("I", "F")):
                return convert_PIL_to_numpy(ImageOps.exif_transpose(image), image_format)
    except Image.DecompressionBombError as e:
        mend = "raise PIL.Image.MAX_IMAGE_PIXELS to read it all the same"
        raise InputError(f"{path} cannot be read: {e} If it is none, {mend}") from e
    except UNREADABLE as e:
        raise InputError(f"{path} cannot be read: {e}") from e
    raise InputError(
        f"{path} has mode {mode!r}, grey with more than 8 bits: scale it to 0..255 and write it "
        "with 8"
    )


def read_label(path: str) -> np.ndarray:
    """(H, W) uint8 ids of a label PNG.

    Raises:
        InputError: it cannot be read, is a JPEG by its content, or is not 8-bit single-channel. A
            palette PNG is refused because Detectron2 reads one as luminance, and one of fewer bits
            because Pillow scales its ids to 255; both make other ids of its own.
    """
    try:
        with PathManager.open(path, "rb") as f:
            bits = png_bit_depth(f)
            with Image.open(f) as image:
                if image.format in LOSSY_FORMATS:
                    raise InputError(
                        f"{path} is a {image.format} file, whatever its name: that changes pixels "
                        "near the borders to other classes. Write the label anew, as a PNG, from "
                        "where it was drawn"
                    )
                if image.mode == "L" and bits in (None, 8):
                    return np.asarray(image)
                mode = image.mode
    except InputError:
        raise
    except UNREADABLE as e:
        raise InputError(f"{path} cannot be read: {e}") from e
    what = f"mode {mode!r}" if bits in (None, 8) else f"mode {mode!r} and {bits} bits"
    mend = ""
    if mode in ("P", "PA"):
        mend = (
            ". Its indices become one by "
            "Image.fromarray(numpy.asarray(Image.open(path))).save(path)"
        )
    raise InputError(f"{path} has {what}; a label is an 8-bit single-channel PNG (mode 'L'){mend}")


def png_bit_depth(file: BinaryIO) -> int | None:
    """Bits a channel of a PNG, None where it is none; the file is left at its start."""
    start = file.read(25)
    file.seek(0)
    return start[24] if start.startswith(b"\x89PNG\r\n\x1a\n") and len(start) == 25 else None


def check_image_name(path: str) -> None:
    """Raise InputError where `path` has no image's extension."""
    if os.path.splitext(path)[1].lower() not in IMAGE_EXTENSIONS:
        raise InputError(f"{path}: the name of a picture ends in {', '.join(IMAGE_EXTENSIONS)}")


def write_image(path: str, image: np.ndarray) -> None:
    """Write `image` (BGR, or a single-channel map) by its extension, beside it and renamed.

    The folder is made where it is missing.

    Args:
        path: ends in an image's extension.
        image: (H, W) or (H, W, 3) uint8; of a .png or .tif uint16, too.

    Raises:
        InputError: the extension is no image's, or the format does not take this type or size.
    """
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
    write_beside(path, content.tobytes())
