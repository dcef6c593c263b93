"""Predictions as labels that a labelling tool opens: a module a format."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InputError, did_you_mean
from ..model_info import ModelInfo
from .base import LabelWriter
from .coco import CocoWriter
from .labelme import LabelMeWriter
from .yolo import YoloWriter

__all__ = ["WRITERS", "LabelWriter", "open_writer"]

# By name, as --save-labels takes it.
WRITERS: dict[str, type[LabelWriter]] = {
    "labelme": LabelMeWriter,
    "yolo": YoloWriter,
    "coco": CocoWriter,
}


def open_writer(
    name: str, output: str, info: ModelInfo, images: Sequence[str], stems: Sequence[str]
) -> LabelWriter:
    """What writes labels of images; the parameters are those of LabelWriter.

    Raises:
        InputError: there is no such format, or the images' names do not fit it.
    """
    if name not in WRITERS:
        raise InputError(
            f"`label_format` is {name!r}{did_you_mean(name, list(WRITERS))}; it takes "
            f"{', '.join(WRITERS)}"
        )
    return WRITERS[name](output, info, images, stems)
