"""Cityscapes' folders: gtFine/SPLIT/CITY of label images, leftImg8bit/SPLIT/CITY of images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ...tasks import PIXELS
from ..categories import load_categories
from .color_tables import ColorTable, find_table, tables_above
from .contract import DatasetFormat, LabelledImage, Labelling, Problem
from .raster_files import LabelFolder, find_labels
from .raster_pixels import read_values

# Of the file names; the folder's other files have colours, objects and polygons.
_LABEL = re.compile(r"(.+)_(gtFine|gtCoarse)_(labelIds|labelTrainIds)\.png")
_IMAGE = "_leftImg8bit"
_VOID = 255
# Official ids without a training id, of labelIds files: cityscapesScripts' labels.py.
_IGNORED_IDS = (*range(7), 9, 10, 14, 15, 16, 18, 29, 30)


def _detect(labels: str, images: str) -> bool:
    try:
        found = find_labels(labels, images)
    except (InputError, OSError):
        return False
    return has_frames(found)


def has_frames(found: LabelFolder) -> bool:
    """Whether files are named as Cityscapes' labels are."""
    return any(_LABEL.fullmatch(name) for name in found.masks if "_gt" in name)


def _read(labels: str, images: str) -> Labelling:
    """As DatasetFormat.read says.

    The files of training ids are read where all frames have one, else the official ids. The classes
    are Cityscapes' 19, or those of a label_colors.txt, which CVAT and Datumaro write where the
    classes are the user's own.
    """
    found = find_labels(labels, images)
    frames: dict[str, dict[str, str]] = {}
    for name in found.masks:
        if match := _LABEL.fullmatch(name):
            frames.setdefault(match[1], {}).setdefault(match[3], found.path(name))
    if not frames:
        raise InputError(
            f"{found.folder} holds no Cityscapes label (SPLIT/CITY/FRAME_gtFine_labelIds.png)"
        )
    own = find_table(found.folder, only="label_colors.txt")
    trained = own is None and all("labelTrainIds" in kinds for kinds in frames.values())
    kind = "labelTrainIds" if trained else "labelIds"
    images_of = _images_by_frame(found)
    labelling = _classes(trained) if own is None else _own_classes(own)
    for frame, kinds in sorted(frames.items()):
        image = images_of.get(frame) or images_of.get(frame.rpartition("/")[2]) or frame
        if kind in kinds:
            labelling.images.append(LabelledImage(image, files=(kinds[kind],), source=kinds[kind]))
        else:
            other = next(iter(kinds.values()))
            message = (
                f"{other} has no {os.path.basename(frame)}_gtFine_{kind}.png beside it, as others "
                "have: make it with cityscapesScripts"
            )
            labelling.problems.append(Problem("missing file", other, message))
    return labelling


def _images_by_frame(found: LabelFolder) -> dict[str, str]:
    """{"CITY/FRAME" and "FRAME" alone: path of its image in the folder, without extension}."""
    by_frame: dict[str, str] = {}
    for stem in sorted(found.stems):
        frame = stem.removesuffix(_IMAGE)
        by_frame[frame] = stem
        by_frame.setdefault(frame.rpartition("/")[2], stem)
    return by_frame


def _classes(trained: bool) -> Labelling:
    categories = load_categories("cityscapes")
    ids = range(len(categories.names)) if trained else categories.source_ids
    return Labelling(
        images=[],
        names=list(categories.names),
        values=dict(zip(ids, categories.names, strict=True)),
        colors=dict(zip(categories.names, categories.colors, strict=True)),
    )


def _own_classes(table: ColorTable) -> Labelling:
    names = table.distinct_names()
    return Labelling([], names, dict(enumerate(names)), table.first_colors())


def _decode(files: Sequence[str], names: Sequence[str]) -> np.ndarray:
    values = read_values(files[0])
    is_official = list(names) == list(load_categories("cityscapes").names)
    if not is_official or not files[0].endswith("_labelIds.png") or values.dtype != np.uint8:
        return values
    table = np.arange(256, dtype=np.uint8)
    table[list(_IGNORED_IDS)] = _VOID
    return table[values]


FORMAT = DatasetFormat(
    name="cityscapes",
    tasks=(PIXELS.name,),
    detect=_detect,
    read=_read,
    decode=_decode,
    beyond=tables_above,
)
