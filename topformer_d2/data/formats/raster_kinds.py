"""Which format the label images of a folder are of, told by a few of them."""

from __future__ import annotations

import os

from ...errors import InputError
from .binary_masks import has_masks
from .cityscapes import has_frames
from .color_tables import Color, find_table
from .raster_files import LabelFolder, find_labels
from .raster_pixels import look_at, read_palette

INDEX_MASKS = "index_masks"
COLOUR_MASKS = "colour_masks"

# More values or colours than a label image has, and fewer than most photographs.
_MOST_VALUES = 160
_MOST_COLOURS = 256
# A file of this name beside an image has its shapes, and what lies there is the image itself.
_SHAPES = (".json", ".xml")


def is_of_kind(kind: str, labels: str, images: str) -> bool:
    """Whether a folder has label images of one kind, as DatasetFormat.detect says.

    Args:
        kind: INDEX_MASKS or COLOUR_MASKS.
        labels, images: as DatasetFormat.detect has them.
    """
    try:
        return _kind_of(labels, images) == kind
    except (InputError, OSError):
        return False


def _kind_of(labels: str, images: str) -> str | None:
    found = find_labels(labels, images)
    names = found.samples()
    if not names:
        return None
    for name in names:
        stem = os.path.splitext(found.path(name))[0]
        if any(os.path.exists(stem + extension) for extension in _SHAPES):
            return None
    if has_frames(found) or has_masks(found):
        return None
    looks = look_at([found.path(name) for name in names])
    if not looks or any(each.distinct > _MOST_COLOURS for each in looks):
        return None
    if any(each.has_colors for each in looks):
        return COLOUR_MASKS
    if any(each.distinct > _MOST_VALUES for each in looks if each.mode != "P"):
        return None
    table = find_table(found.folder)
    if table is None or all(len({*color}) == 1 for color in table.colors):
        return INDEX_MASKS
    # Those looked at may be all black, but they are written as colours, which the table names.
    by_color = looks[0].mode == "RGB" or shared_palette(found) is None
    return COLOUR_MASKS if by_color else INDEX_MASKS


def shared_palette(found: LabelFolder) -> dict[int, Color] | None:
    """{index: colour} of the palettes of a few files; {} without palettes, None where they differ.

    Args:
        found: the files.
    """
    shared: dict[int, Color] = {}
    for name in found.samples():
        try:
            palette = read_palette(found.path(name))
        except InputError:  # decode will tell
            continue
        for index, color in enumerate(palette or ()):
            if shared.setdefault(index, color) != color:
                return None
    return shared
