"""Finding, reading and writing image and label files."""

from __future__ import annotations

import glob
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from detectron2.data.detection_utils import read_image as read_detectron2_image
from detectron2.utils.file_io import PathManager
from PIL import Image

from ..errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where two runs at once are not kept apart
    fcntl = None

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# What Pillow raises for a file that is no image, is cut off, or claims to be enormous.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def has_extension(name: str, *extensions: str) -> bool:
    """Whether a file is named so, in any case; hidden files, such as macOS's "._x.png", never are.

    Args:
        name: without its folder.
        extensions: such as ".png"; none = those of images.
    """
    extension = os.path.splitext(name)[1].lower()
    return name[0] != "." and extension in (extensions or IMAGE_EXTENSIONS)


def list_images(source: str, option: str = "--input") -> list[str]:
    """The image files that `source` names: a file, a folder (not its subfolders) or a glob.

    Args:
        source: as the user gave it.
        option: by which, for the message.

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
        raise InputError(f"{option} {source}: no image there (a file, a folder or a glob)")
    return found


def read_image(path: str, image_format: str = "BGR") -> np.ndarray:
    """(H, W, 3) uint8, turned by its EXIF orientation; InputError where it cannot be read."""
    try:
        return read_detectron2_image(path, format=image_format)
    except UNREADABLE as e:
        raise InputError(f"{path} cannot be read: {e}") from e


def read_label(path: str) -> np.ndarray:
    """(H, W) uint8 ids of a label PNG.

    Raises:
        InputError: it cannot be read, or is not 8-bit single-channel. A palette PNG is refused
            because Detectron2 reads one as luminance, and one of fewer bits because Pillow scales
            its ids to 255; both make other ids of its own.
    """
    try:
        with PathManager.open(path, "rb") as f:
            bits = png_bit_depth(f)
            with Image.open(f) as image:
                if image.mode == "L" and bits in (None, 8):
                    return np.asarray(image)
                mode = image.mode
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

    The folder is made where it is missing. InputError where the extension is no image's.
    """
    check_image_name(path)
    write_beside(Path(path), cv2.imencode(os.path.splitext(path)[1], image)[1].tobytes())


def write_beside(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it, so that a killed run leaves no half file.

    The other name is the same for every run, so that what a killed one left is written over, and
    locked, so that of two runs at once neither renames what the other is writing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with _open_locked(partial) as f:
        f.truncate(0)
        f.write(content)
        f.flush()
        os.replace(partial, path)


def _open_locked(path: Path) -> BinaryIO:
    """The file, open for writing, and locked until it is closed or its process ends."""
    while True:
        f = open(path, "ab")  # noqa: SIM115 (the caller closes it)
        if fcntl is None:
            return f
        with suppress(OSError):  # a file system without locks
            fcntl.flock(f, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(f.fileno()), os.stat(path)):
                return f
        f.close()  # whoever held the lock has renamed it: this is the finished file


def write_json(path: str, content) -> None:
    """Write JSON as write_bytes does."""
    write_bytes(path, json.dumps(content).encode())


def write_bytes(path: str, content: bytes) -> None:
    """Write a file beside and renamed; to a remote store, which has no rename, directly."""
    if "://" in path:
        with PathManager.open(path, "wb") as f:
            f.write(content)
    else:
        write_beside(Path(path), content)
