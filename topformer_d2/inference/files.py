"""Finding, reading and writing image files."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import cv2
import numpy as np
from detectron2.data.detection_utils import read_image as read_detectron2_image

from ..data.builtin import IMAGE_EXTENSIONS
from ..errors import InputError


def list_images(source: str) -> list[str]:
    """The image files that `source` names: a file, a folder (not its subfolders) or a glob.

    Raises:
        InputError: there are none.
    """
    if os.path.isdir(source):
        found = sorted(
            os.path.join(source, name)
            for name in os.listdir(source)
            if os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS
        )
    elif os.path.isfile(source):
        found = [source]
    else:
        found = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not found:
        raise InputError(f"--input {source}: no image there (a file, a folder or a glob)")
    return found


def read_image(path: str) -> np.ndarray:
    """(H, W, 3) uint8 BGR, turned by its EXIF orientation; InputError where it cannot be read."""
    try:
        return read_detectron2_image(path, format="BGR")
    except (OSError, SyntaxError, ValueError) as e:
        raise InputError(f"{path} cannot be read as an image: {e}") from e


def write_image(path: str, image: np.ndarray) -> None:
    """Write `image` (BGR, or a single-channel map) by its extension, beside it and renamed."""
    target = Path(path)
    ok, content = cv2.imencode(target.suffix, image)
    if not ok:
        raise InputError(f"{path}: OpenCV cannot write {target.suffix} files")
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(content.tobytes())
    os.replace(partial, target)
