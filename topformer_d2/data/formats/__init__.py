"""The formats of datasets that DATASETS.FOLDERS takes: a module each, which defines its FORMAT."""

from __future__ import annotations

import os

from ...errors import InputError, did_you_mean
from ...files import full_path
from ...logs import get_logger
from . import (
    binary_masks,
    cityscapes,
    coco_shapes,
    colour_masks,
    cvat,
    index_masks,
    label_studio,
    labelme,
    supervisely,
    voc,
    yolo,
)
from .contract import (
    BACKGROUND,
    DatasetFormat,
    LabelledImage,
    Labelling,
    Problem,
    Shape,
)
from .parallel import map_in_processes, parse_files

__all__ = [
    "BACKGROUND",
    "FORMATS",
    "DatasetFormat",
    "LabelledImage",
    "Labelling",
    "Problem",
    "Shape",
    "detect_format",
    "files_beyond",
    "map_in_processes",
    "parse_files",
    "register",
]

logger = get_logger(__name__)

# By name, in the order in which they are asked whether labels are theirs.
FORMATS: dict[str, DatasetFormat] = {}
_said: set[tuple[str, str]] = set()


def register(new: DatasetFormat) -> None:
    """Add a format to FORMATS.

    Raises:
        ValueError: its name is taken.
    """
    if new.name in FORMATS:
        raise ValueError(f"a dataset format {new.name!r} is registered already")
    FORMATS[new.name] = new


def detect_format(path: str, images: str, task: str, name: str, where: str) -> DatasetFormat:
    """The format of labels, which the log names once where it was told by the files.

    Args:
        path: of the labels, a file or a folder.
        images: folder of their images.
        task: "sem_seg" or "instances", for which they are used.
        name: of the format; "" = by the files.
        where: the key that names `path`, for messages.

    Raises:
        InputError: the labels are missing, of no format or of several, or their format has none
            for the task.
    """
    if not os.path.exists(path):
        raise InputError(
            f"{where} names {path}, but {full_path(path)} does not exist; a relative path "
            "starts at the working directory"
        )
    fitting = [each for each in FORMATS.values() if task in each.tasks]
    names = [each.name for each in fitting]
    entry = where.rpartition(".")[0]
    if name:
        if name not in FORMATS:
            raise InputError(
                f"{entry}.FORMAT is {name!r}{did_you_mean(name, list(FORMATS))}; it takes "
                f"{', '.join(FORMATS)}"
            )
        if name in names:
            return FORMATS[name]
        # Of an entry with both tasks, FORMAT may be that of the other.
    found = [each for each in fitting if each.detect(path, images)]
    if len(found) == 1:
        if (where, found[0].name) not in _said:
            _said.add((where, found[0].name))
            logger.info("%s is read as %s (FORMAT)", where, found[0].name)
        return found[0]
    if found:
        several = " or ".join(each.name for each in found)
        raise InputError(f"{where}: {path} may be {several}: add {entry}.FORMAT")
    others = [each.name for each in FORMATS.values() if each.detect(path, images)]
    if others:
        raise InputError(
            f"{where}: {path} is of the format {others[0]}, which has no "
            f"{'label for each pixel' if task == 'sem_seg' else 'boxes'}; it takes "
            f"{', '.join(names)}"
        )
    raise InputError(
        f"{where}: {path} holds labels of no known format; it takes {', '.join(names)}. Name one "
        f"as {entry}.FORMAT to see what is wrong with its files"
    )


def files_beyond(path: str, images: str) -> list[str]:
    """Files and folders outside of labels and images that a format looks at for them."""
    found = (each.beyond(path, images) for each in FORMATS.values() if each.beyond)
    return sorted({file for files in found for file in files})


# A new format is a module and its entry here.
for _module in (
    *(index_masks, colour_masks, binary_masks, cityscapes),
    *(coco_shapes, labelme, cvat, label_studio, voc, yolo, supervisely),
):
    register(_module.FORMAT)
