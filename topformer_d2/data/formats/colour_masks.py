"""Label images in which a colour is a class, with a table of the colours where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ...tasks import PIXELS
from .color_tables import find_table, tables_above
from .contract import DatasetFormat, Labelling
from .raster_files import find_labels, label_masks
from .raster_kinds import COLOUR_MASKS, is_of_kind
from .raster_pixels import pack, read_colors


def _read(labels: str, images: str) -> Labelling:
    """As DatasetFormat.read says. Names and colours are the table's, which color_tables finds."""
    found = find_labels(labels, images)
    labelled, problems = label_masks(found)
    table = find_table(found.folder)
    # Of a JSON, of Supervisely, it is the grey of its machine masks.
    if table is None or table.file.endswith(".json"):
        return Labelling(labelled, [], problems=problems)
    values = {pack(color): name for color, name in table.by_color().items()}
    return Labelling(labelled, table.distinct_names(), values, table.first_colors(), problems)


def _decode(files: Sequence[str], names: Sequence[str]) -> np.ndarray:
    return read_colors(files[0])


FORMAT = DatasetFormat(
    name=COLOUR_MASKS,
    tasks=(PIXELS.name,),
    detect=partial(is_of_kind, COLOUR_MASKS),
    read=_read,
    decode=_decode,
    has_colors=True,
    beyond=tables_above,
)
