"""Shapes as label maps and as boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_masks

from ...errors import InputError, shortened
from ..coco_json import LARGEST_COORDINATE
from ..formats.contract import LabelledImage, Shape
from ..formats.regions import box_around, check_rle, compress
from ..object_outlines import mask_outline, rounded


def draw(
    shapes: Sequence[tuple[Shape, int]], height: int, width: int, background: int
) -> np.ndarray:
    """(height, width) uint8: the class of the last shape that covers a pixel.

    Which pixels a polygon covers is as COCO's own tools have it.

    Args:
        shapes: in pixels, each with the training id that it is drawn with.
        background: the training id of the other pixels.

    Raises:
        InputError: a mask is not of this size, or is damaged.
    """
    label = np.full((height, width), background, np.uint8)
    for shape, value in shapes:
        if not shape.polygons and shape.rle is None:
            if shape.box is not None:
                x0, y0, x1, y1 = (round(v) for v in shape.box)
                label[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = value
            continue
        label[_region(shape, height, width)] = value
    return label


def _region(shape: Shape, height: int, width: int) -> np.ndarray:
    """(height, width) bool: the pixels of its polygons or of its mask."""
    try:
        if shape.polygons:
            polygons = _closed(shape, max(height, width))
            rle = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
        else:
            rle = _compressed(shape, height, width)
        return coco_masks.decode(rle).astype(bool)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as e:
        raise InputError(f"a mask of {shape.label!r} is damaged: {e}") from e


def _closed(shape: Shape, side: int) -> list[list[float]]:
    """Its polygons, without those of fewer than three points, which cover nothing.

    pycocotools takes memory for every pixel of their outlines, wherever they lie.
    """
    most = 10 * side + 1000
    for value in (value for polygon in shape.polygons for value in polygon):
        if not abs(value) <= most:  # nan as well
            raise InputError(
                f"a polygon of {shape.label!r} has the coordinate {value}, far outside of its "
                f"image, whose longer side is {side} pixels"
            )
    polygons = [list(polygon) for polygon in shape.polygons if len(polygon) >= 6]
    # pycocotools takes a list of four numbers for a box.
    return polygons or [[0.0] * 6]


def _compressed(shape: Shape, height: int, width: int) -> dict:
    assert shape.rle is not None
    rle = dict(shape.rle)
    if isinstance(rle.get("counts"), bytes):
        rle["counts"] = rle["counts"].decode("ascii", "replace")
    try:
        rle = check_rle(rle, "it")
    except InputError as e:
        raise InputError(f"a mask of {shape.label!r} is damaged: {e}") from e
    if rle["size"] != [height, width]:
        raise InputError(
            f"a mask of {shape.label!r} is for {rle['size']} (height, width), but its image is "
            f"{height}x{width}"
        )
    return compress(rle) if isinstance(rle["counts"], list) else rle


def shape_box(shape: Shape, height: int, width: int) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) in pixels around a shape; None where it covers nothing.

    Raises:
        InputError: a number is not finite or is no image's, or its mask is damaged.
    """
    if shape.box is not None:
        box = shape.box
    elif shape.polygons:
        box = box_around([value for polygon in shape.polygons for value in polygon])
    elif shape.rle is not None:
        rows, columns = np.nonzero(_region(shape, height, width))
        if not len(rows):
            return None
        box = (
            float(columns.min()),
            float(rows.min()),
            float(columns.max() + 1),
            float(rows.max() + 1),
        )
    else:
        return None
    if not all(math.isfinite(v) and abs(v) <= LARGEST_COORDINATE for v in box):
        raise InputError(f"an object of {shape.label!r} has the box {shortened(box)}")
    return box


def shape_outline(shape: Shape, height: int, width: int) -> list[list[float]]:
    """The polygons [x0, y0, ...] of a shape in pixels; empty where it is its box, or a crowd.

    Raises:
        InputError: its mask is damaged.
    """
    if shape.is_crowd:
        return []
    if shape.polygons:
        return rounded(shape.polygons)
    return [] if shape.rle is None else rounded(mask_outline(_region(shape, height, width)))


def to_pixels(image: LabelledImage, height: int, width: int) -> list[Shape]:
    """Its shapes in pixels of the image."""
    if not image.is_relative:
        return list(image.shapes)
    scaled = []
    for shape in image.shapes:
        box, sizes = shape.box, (width, height)
        if box is not None:
            box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        polygons = tuple(
            tuple(value * sizes[i % 2] for i, value in enumerate(polygon))
            for polygon in shape.polygons
        )
        scaled.append(shape._replace(box=box, polygons=polygons))
    return scaled
