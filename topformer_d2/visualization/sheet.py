"""Pictures side by side in one PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def make_sheet(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], *, gap: int = 6
) -> np.ndarray:
    """A grid of pictures with a title above each column.

    Args:
        rows: pictures (H, W, 3) uint8 RGB; the same number in each row, sizes may differ.
        titles: one for each column.
        gap: pixels between the pictures.

    Returns:
        (H, W, 3) uint8 RGB, white where no picture is.
    """
    widths = [max(row[c].shape[1] for row in rows) for c in range(len(titles))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    font = ImageFont.load_default(size=15)
    header = 24
    size = (sum(widths) + gap * (len(widths) + 1), header + sum(heights) + gap * len(heights))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    y = header
    for r, row in enumerate(rows):
        x = gap
        for c, picture in enumerate(row):
            if r == 0:
                draw.text((x, 4), titles[c], fill="black", font=font)
            sheet.paste(Image.fromarray(picture), (x, y))
            x += widths[c] + gap
        y += heights[r] + gap
    return np.asarray(sheet)
