"""What is left of boxes that an augmentation cuts off or covers.

A box of which too little is left becomes one of no area, [0, 0, 0, 0]. Transforms cannot take boxes
out, since the classes lie beside them; TaskMapper drops those of no area at the end.
"""

from __future__ import annotations

import numpy as np

# Of a box that is dropped.
GONE = np.zeros(4, np.float32)


def pixel_window(box: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box (4,) touches in an image of (height, width)."""
    (x0, y0), (x1, y1) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    return slice(max(y0, 0), min(y1, size[0])), slice(max(x0, 0), min(x1, size[1]))


def shown_box(
    box: np.ndarray,
    window: tuple[slice, slice],
    region: np.ndarray,
    shown: np.ndarray,
    min_visible: float,
) -> np.ndarray:
    """The box around what is still seen of an object.

    Args:
        box: (4,) XYXY in pixels.
        window: the rows and columns that `region` and `shown` are of, as from pixel_window.
        region: (h, w) bool, where the object was.
        shown: (h, w) bool, where something of the image is still seen.
        min_visible: the share of the region that must be seen.

    Returns:
        (4,): the box itself where all of it is seen, else cut to the seen pixels; or GONE.
    """
    seen = region & shown
    before, after = np.count_nonzero(region), np.count_nonzero(seen)
    if after == before and before:
        return box
    if not after or after < min_visible * before:
        return GONE
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    y0, x0 = window[0].start, window[1].start
    low = np.maximum(box[:2], [x0 + columns[0], y0 + rows[0]])
    high = np.minimum(box[2:], [x0 + columns[-1] + 1, y0 + rows[-1] + 1])
    return np.concatenate([low, high])


def cut_boxes(boxes: np.ndarray, window: np.ndarray, min_visible: float) -> np.ndarray:
    """Boxes (n, 4) XYXY cut to a window (4,) XYXY; those with too small a share inside are GONE."""
    boxes = boxes.reshape(-1, 4)
    cut = np.concatenate(
        [np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])], axis=1
    )
    sides = (cut[:, 2:] - cut[:, :2]).clip(0)
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    inside = sides.prod(1)
    cut[(inside <= 0) | (inside < min_visible * whole)] = GONE
    return cut
