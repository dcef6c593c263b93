#!/usr/bin/env python
"""Draw the README's picture: an image, its predicted label map, and predicted boxes.

The panels are cut from docs/camvid_val.jpg and docs/bccd_val.jpg, which `topformer data view` drew
of models that were trained here (docs/training.md and docs/results.md have the commands).

  python benchmarks/readme_picture.py --output docs/strip.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from topformer_d2.visualization import make_sheet

DOCS = Path(__file__).resolve().parent.parent / "docs"
GAP, HEADER = 6, 24  # make_sheet's
SIZE = (480, 360)  # width and height of a panel
TITLES = ("image", "TopFormer-T, pixels (18 minutes on a CPU)", "TopFormer-T, boxes (34 minutes)")


def panel(file: str, row: int, column: int, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB of a sheet whose pictures all have one (width, height)."""
    sheet = cv2.cvtColor(cv2.imread(str(DOCS / file)), cv2.COLOR_BGR2RGB)
    width, height = size
    x, y = GAP + column * (width + GAP), HEADER + row * (height + GAP)
    picture = sheet[y : y + height, x : x + width]
    return cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default=str(DOCS / "strip.jpg"), metavar="FILE")
    args = parser.parse_args()
    panels = [
        panel("camvid_val.jpg", 0, 0, (480, 360)),
        panel("camvid_val.jpg", 0, 2, (480, 360)),
        panel("bccd_val.jpg", 1, 2, (640, 480)),
    ]
    strip = make_sheet([panels], TITLES)
    cv2.imwrite(args.output, strip[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
