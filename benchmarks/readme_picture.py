#!/usr/bin/env python
"""Draw the README's picture: two images, and what the models of the package find in them.

  python benchmarks/readme_picture.py --street STREET --blood BLOOD --output docs/strip.jpg

The pixels are camvid_t's, the boxes bccd_t's. docs/strip.jpg has 0016E5_08137.jpg of CamVid and
BloodImage_00014.jpg of BCCD, validation images that both models were trained on.
"""

import argparse

import cv2
import numpy as np

from topformer_d2 import Predictor
from topformer_d2.visualization import Painter, make_sheet

SIZE = (480, 360)  # width and height of a panel
TITLES = ("image", "camvid_t: TopFormer-T, pixels", "bccd_t: TopFormer-T, boxes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--street", required=True, metavar="FILE", help="for camvid_t")
    parser.add_argument("--blood", required=True, metavar="FILE", help="for bccd_t")
    parser.add_argument("--output", default="docs/strip.jpg", metavar="FILE")
    args = parser.parse_args()
    street = cv2.imread(args.street)
    panels = [street, drawn("camvid_t", street), drawn("bccd_t", cv2.imread(args.blood))]
    panels = [cv2.resize(panel, SIZE, interpolation=cv2.INTER_AREA) for panel in panels]
    strip = make_sheet([[panel[:, :, ::-1] for panel in panels]], TITLES)
    cv2.imwrite(args.output, strip[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def drawn(name: str, image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 BGR with the labels or the boxes of a model of the package."""
    predictor = Predictor(name)
    scene = predictor(image).above(0.4)
    return Painter(predictor.info).draw(image[:, :, ::-1], scene)[:, :, ::-1]


if __name__ == "__main__":
    main()
