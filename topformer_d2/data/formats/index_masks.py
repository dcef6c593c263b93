"""Label images whose values are the numbers of classes: grey of any depth, or with a palette."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import numpy as np

from ...errors import InputError
from ...tasks import PIXELS
from ..class_list import read_classes
from .color_tables import Color, ColorTable, find_table, read_value_names, tables_above
from .contract import DatasetFormat, Labelling
from .raster_files import find_labels, label_masks
from .raster_kinds import INDEX_MASKS, is_of_kind, shared_palette
from .raster_pixels import read_values

# Pascal VOC's index of pixels that are not rated, around objects; the core ignores it.
_VOID = 255
# In the order of the indices: host.robots.ox.ac.uk/pascal/VOC, devkit's VOCinit.m.
_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)


def _read(labels: str, images: str) -> Labelling:
    """As DatasetFormat.read says.

    The names are those of, in this order: Roboflow's _classes.csv in the folder; a table of
    colours, which color_tables finds, by the palette's colours, by the grey values, or else by the
    order of its lines; class_names.txt of labelme's script beside the folder; Pascal VOC, where the
    folder is its devkit's. Else the values have no names. Of palettes, 255 never has one: it is
    Pascal VOC's void.
    """
    found = find_labels(labels, images)
    labelled, problems = label_masks(found)
    if values := read_value_names(found.folder):
        return Labelling(labelled, list(dict.fromkeys(values.values())), values, problems=problems)
    palette = shared_palette(found)
    table = find_table(found.folder)
    if table is not None:
        if palette is None:
            raise InputError(
                f"the palettes of {found.folder} differ, so that an index is another colour in "
                f"another file, and {table.file} names colours: set FORMAT: colour_masks"
            )
        values = _values_of(table, palette or {})
        colors = table.first_colors()
        void = (palette or {}).get(_VOID)
        names = [n for n in table.distinct_names() if n in values.values() or colors.get(n) != void]
    else:
        palette = palette or {}
        names = list(_listed_names(found.folder) or _voc_names(found.folder))
        values = dict(enumerate(names))
        colors = {name: palette[i] for i, name in values.items() if i in palette}
    return Labelling(labelled, names, values, colors, problems)


def _values_of(table: ColorTable, palette: dict[int, Color]) -> dict[int, str]:
    """{value: name} of a table of colours."""
    by_color = table.by_color()
    values: dict[int, str] = {}
    for index, color in sorted(palette.items()):
        # A palette is filled up with black; of several indices of a colour the first is meant.
        if color in by_color and by_color[color] not in values.values() and index != _VOID:
            values[index] = by_color[color]
    if values and any(len({*color}) > 1 for color in palette.values()):
        return values
    if by_color and all(len({*color}) == 1 for color in by_color):
        return {color[0]: name for color, name in by_color.items()}
    return dict(enumerate(table.distinct_names()))


def _listed_names(folder: str) -> tuple[str, ...]:
    """Of the class_names.txt beside a folder that labelme's labelme2voc.py wrote; () without one.

    Raises:
        InputError: it cannot be used.
    """
    path = os.path.join(os.path.dirname(os.path.abspath(folder)), "class_names.txt")
    return read_classes(path).names if os.path.isfile(path) else ()


def _voc_names(folder: str) -> tuple[str, ...]:
    """Pascal VOC's, where the folder is SegmentationClass of its devkit."""
    root, name = os.path.split(os.path.abspath(folder))
    is_voc = name == "SegmentationClass" and os.path.isdir(
        os.path.join(root, "ImageSets", "Segmentation")
    )
    return _VOC_NAMES if is_voc else ()


def _decode(files: Sequence[str], names: Sequence[str]) -> np.ndarray:
    return read_values(files[0])


FORMAT = DatasetFormat(
    name=INDEX_MASKS,
    tasks=(PIXELS.name,),
    detect=partial(is_of_kind, INDEX_MASKS),
    read=_read,
    decode=_decode,
    beyond=tables_above,
)
