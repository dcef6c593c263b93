"""The outlines of objects, as annotations of records have them in Detectron2's "segmentation".

Records have them where the labels have shapes and somebody asks for them, as INPUT.COPY_PASTE does.
They are polygons also where the labels are masks: a polygon moves with its image in no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import InputError, shortened
from ..files import read_json
from .coco_json import LARGEST_COORDINATE
from .formats.regions import check_rle, compress
from .outlines import outlines
from .source_cache import parse_once

# Polygons (k, 2) float, x and y in pixels, which are one region together; empty = not known.
Outline = list[np.ndarray]
# Corners are kept to this many decimals of a pixel.
_DECIMALS = 2


def mask_outline(mask: np.ndarray) -> list[list[float]]:
    """The polygons [x0, y0, ...] of a mask (H, W) bool."""
    return [ring.ravel().tolist() for ring in outlines(mask)]


def rounded(polygons: Sequence[Sequence[float]]) -> list[list[float]]:
    """Polygons [x0, y0, ...] as they are kept, without those of fewer than three corners."""
    return [
        [round(value, _DECIMALS) for value in polygon] for polygon in polygons if len(polygon) >= 6
    ]


def packed(polygons: Sequence[Sequence[float]]) -> list[np.ndarray]:
    """Polygons as a record has them: arrays take a fraction of the memory of lists."""
    return [np.asarray(polygon, np.float32) for polygon in polygons]


def outline_of(annotation: Mapping[str, Any], size: tuple[int, int]) -> Outline:
    """The outline of a record's annotation, within an image of (height, width).

    Raises:
        InputError: its "segmentation" is neither polygons nor an RLE of this size.
    """
    found = annotation.get("segmentation")
    if found is None or len(found) == 0:
        return []
    try:
        if isinstance(found, Mapping):
            found = mask_outline(_decoded(found, size))
        polygons = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in found]
    except (ValueError, TypeError, KeyError) as e:
        raise InputError(
            f"the 'segmentation' {shortened(annotation['segmentation'], 60)} is neither polygons "
            f"[x, y, ...] nor an RLE: {e}"
        ) from e
    # What reaches out of the image cannot be seen, and a perspective may throw it anywhere.
    height, width = size
    return [polygon.clip(0, [width, height]) for polygon in polygons if len(polygon) >= 3]


def _decoded(rle: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    counts = rle["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    checked = check_rle({"size": [*map(int, rle["size"])], "counts": counts}, "the mask")
    if checked["size"] != [*size]:
        raise ValueError(f"it is for {checked['size']} (height, width), and its image is {size}")
    return coco_mask.decode(compress(checked) if isinstance(counts, list) else checked) > 0


def fill_outline(outline: Outline, window: tuple[slice, slice]) -> np.ndarray:
    """(h, w) bool: the pixels that an outline covers in a window of rows and columns."""
    rows, columns = window
    h, w = rows.stop - rows.start, columns.stop - columns.start
    if h < 1 or w < 1 or not outline:
        return np.zeros((max(h, 0), max(w, 0)), bool)
    corner = columns.start, rows.start
    parts = [(polygon - corner).ravel().tolist() for polygon in outline]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, h, w))) > 0


def read_outlines(json_file: str) -> tuple[list[Any], int]:
    """The outlines of a COCO JSON that read_coco and read_boxes take.

    Returns:
        of each of its annotations what a record has as "segmentation": polygons (packed), an RLE,
        or None where it has none or is a crowd; and how many cannot be used, which are None, too.
    """
    return parse_once(_parse_outlines, json_file)


def _parse_outlines(json_file: str) -> tuple[list[Any], int]:
    found: list[Any] = []
    num_wrong = 0
    content = read_json(json_file)
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    for annotation in content["annotations"]:
        try:
            is_crowd = annotation.get("iscrowd")
            found.append(None if is_crowd else _usable(annotation, sizes[annotation["image_id"]]))
        except (InputError, TypeError, ValueError):
            found.append(None)
            num_wrong += 1
    return found, num_wrong


def _usable(annotation: dict, size: list[int]) -> Any:
    value = annotation.get("segmentation")
    if not value:
        return None
    if isinstance(value, dict):
        checked = check_rle(value, "the segmentation")
        if checked["size"] != size:  # which would stop a training at the image
            raise InputError(f"it is for {checked['size']}, and its image is {size}")
        return checked
    if not isinstance(value, list):
        raise InputError("it is neither polygons nor an RLE")
    # One polygon alone is written by some tools.
    polygons = value if isinstance(value[0], list) else [value]
    for number in (number for polygon in polygons for number in polygon):
        if type(number) not in (int, float) or not abs(number) <= LARGEST_COORDINATE:
            raise InputError(f"it has {shortened(number, 40)}")
    if any(len(polygon) % 2 for polygon in polygons):
        raise InputError("it has an x without a y")
    return packed(rounded(polygons)) or None
