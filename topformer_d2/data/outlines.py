"""The regions of a label map as polygons, which can be edited."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Pixels by which an outline may leave the edges of its pixels. The steps of a slanted edge are
# within 0.71 of a straight line.
_TOLERANCE = 0.75


def outlines(mask: np.ndarray, min_area: float = 1) -> list[np.ndarray]:
    """The connected regions of a mask, the largest first.

    An outline runs along the edges of pixels, to within a pixel. A hole is joined to it by a line
    that is passed both ways, because most tools have no other way to say a hole.

    Args:
        mask: (H, W) bool.
        min_area: in pixels. Smaller regions are left out, and smaller holes are filled.

    Returns:
        of each region its corners (n, 2) float32, x and y in pixels; the left edge of the first
        pixel is 0.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    # OpenCV gives centres of pixels. Of a pixel that is halved, they say on which side the edge is.
    halved = part.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, tree = cv2.findContours(halved, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [_edges(each) for each in found]
    areas = [cv2.contourArea(ring) for ring in rings]
    holes: dict[int, list[int]] = {}
    for index, (*_, parent) in enumerate(tree[0]):
        holes.setdefault(int(parent), []).append(index)
    regions = []
    for index in holes.get(-1, ()):
        inner = holes.get(index, ())
        area = areas[index] - sum(areas[i] for i in inner)
        if area < min_area:
            continue
        ring = _simplified(rings[index])
        ring = _joined(ring, [_simplified(rings[i]) for i in inner if areas[i] >= min_area])
        regions.append((area, ring + np.array([left, top], np.float32)))
    regions.sort(key=lambda region: -region[0])
    return [ring for _, ring in regions]


def _edges(contour: np.ndarray) -> np.ndarray:
    """(n, 2) float32: the edges of the pixels whose halves (n, 1, 2) are a contour."""
    points = (contour[:, 0] + 1) // 2
    moved = (points != np.roll(points, 1, axis=0)).any(axis=1)
    return points[moved].astype(np.float32)


def _simplified(ring: np.ndarray) -> np.ndarray:
    found = cv2.approxPolyDP(ring, _TOLERANCE, True)[:, 0]
    return found if len(found) >= 3 else ring  # a line of pixels


def _joined(ring: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """The ring with its holes, each joined by its leftmost corner to the nearest of the others."""
    for hole in holes:
        turned = np.roll(hole, -hole[:, 0].argmin(), axis=0)
        at = ((ring - turned[0]) ** 2).sum(axis=1).argmin()
        ring = np.concatenate([ring[: at + 1], turned, turned[:1], ring[at:]])
    return ring
