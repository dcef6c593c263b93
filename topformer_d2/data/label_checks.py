"""Checks of an image's labels against the image and the classes."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def check_label_range(label: np.ndarray, num_classes: int, ignore_value: int, file: str) -> None:
    """Raise InputError, naming `file`, where a label is neither a class nor ignored.

    Args:
        label: integers of any shape.
        num_classes: valid labels are 0 .. num_classes - 1.
        ignore_value: valid too.
    """
    if label.size == 0:
        return
    bad = label[(label >= num_classes) & (label != ignore_value)]
    if bad.size == 0 and label.min() >= 0:
        return
    value = int(bad.flat[0]) if bad.size else int(label.min())
    raise InputError(
        f"{file}: label {value} is out of range; the {num_classes} classes are 0 to "
        f"{num_classes - 1}, and {ignore_value} is ignored. MODEL.SEM_SEG_HEAD.NUM_CLASSES or the "
        "preparation of the labels is wrong"
    )


def check_image_size(record: dict, size: tuple[int, int]) -> None:
    """Raise InputError where the record's annotations were made for an image of another size.

    Args:
        record: its "height" and "width" are compared, where it has them.
        size: (height, width) of its image.
    """
    recorded = record.get("height", size[0]), record.get("width", size[1])
    if recorded != size:
        raise InputError(
            f"{record['file_name']} is {size} (height, width), but its annotations are "
            f"for an image of {recorded}. Is it another file, or turned by its EXIF orientation?"
        )


def check_label_size(label: np.ndarray, size: tuple[int, int], file: str, image_file: str) -> None:
    """Raise InputError where the label `file` has not the (height, width) of its image."""
    if label.shape != size:
        turned = label.shape == size[::-1]
        hint = ". An image is turned by its EXIF orientation, a label is not" if turned else ""
        raise InputError(
            f"{image_file} is {size} (height, width) and its label {file} {label.shape}{hint}"
        )
