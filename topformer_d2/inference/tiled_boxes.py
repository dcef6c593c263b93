"""Merging the boxes of overlapping tiles, so that each object is found once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.layers import batched_nms

from .backends import NetworkOutput
from .tiles import tile_starts

# Pixels from a tile's edge within which a box is taken to be cut by it.
_MARGIN = 4
# IoU above which boxes of two tiles are one object's.
_NMS_THRESHOLD = 0.5


def merge_boxes(
    outputs: Mapping[tuple[int, int], NetworkOutput], size: Sequence[int], tile: int
) -> NetworkOutput:
    """The boxes of an image from those of its tiles, best first.

    A box that its tile's edge cuts is left out where the neighbouring tile sees all of the object;
    NMS drops what two tiles have seen alike. An object that is longer than the overlap may yet be
    found in parts.

    Args:
        outputs: by the place (y, x) of the tile, with boxes in pixels of the tile.
        size: (height, width) of the image.
        tile: longest side of a tile in pixels.
    """
    parts = [_of_tile(output, place, size, tile) for place, output in outputs.items()]
    boxes, scores, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
    keep = batched_nms(*map(torch.from_numpy, (boxes, scores, classes)), _NMS_THRESHOLD).numpy()
    return NetworkOutput(boxes=boxes[keep], scores=scores[keep], classes=classes[keep])


def _of_tile(
    output: NetworkOutput, place: tuple[int, int], size: Sequence[int], tile: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Its boxes (n, 4) in pixels of the image, scores and classes."""
    corner = np.array(place[::-1], np.float32)
    end = np.minimum(corner + tile, np.array(size[::-1], np.float32))
    boxes = (output.boxes + np.tile(corner, 2)).clip(np.tile(corner, 2), np.tile(end, 2))
    seen_whole = np.zeros(len(boxes), bool)  # by a neighbour
    for axis, (start, side) in enumerate(zip(place, size, strict=True)):
        low, high = boxes[:, 1 - axis], boxes[:, 3 - axis]
        starts = tile_starts(side, tile)
        i = starts.index(start)
        if i > 0:
            end_of_last = starts[i - 1] + tile
            seen_whole |= (low <= start + _MARGIN) & (high < end_of_last - _MARGIN)
        if i + 1 < len(starts):
            seen_whole |= (high >= start + tile - _MARGIN) & (low > starts[i + 1] + _MARGIN)
    return boxes[~seen_whole], output.scores[~seen_whole], output.classes[~seen_whole]
