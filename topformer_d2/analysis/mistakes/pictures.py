"""The pictures of a report, and the sheet worst.png."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...visualization import make_sheet
from ...visualization.mistakes import captioned, jpeg

ROW_NAMES = ("image", "truth", "prediction", "errors")
# Pixels of the longer side of a picture of a whole image.
THUMBNAIL = 360


def picture(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as JPEG in base64, as JSON and a page can hold it."""
    return base64.b64encode(jpeg(pixels)).decode()


@dataclass(frozen=True)
class Row:
    """Pictures of an image that a model does badly on.

    Attributes:
        file: of the image.
        caption: how badly.
        pictures: by ROW_NAMES; (H, W, 3) uint8 RGB.
    """

    file: str
    caption: str
    pictures: dict[str, np.ndarray]

    def to_dict(self) -> dict:
        """As plain values, with JPEG in base64."""
        drawn = {name: picture(pixels) for name, pixels in self.pictures.items()}
        return {"file": self.file, "caption": self.caption, "pictures": drawn}


def worst_sheet(rows: Sequence[Row]) -> np.ndarray:
    """The pictures of all rows as one (H, W, 3) uint8 RGB."""
    cells = []
    for row in rows:
        first, *others = (row.pictures[name] for name in ROW_NAMES)
        cells.append([captioned(first, row.caption), *others])
    return make_sheet(cells, ROW_NAMES)
