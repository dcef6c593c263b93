"""boxes.c, called from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from .library import native_library

_MOST = 1 << 24  # candidates of a level that boxes.c takes


class _Settings(ctypes.Structure):
    """topformer_box_settings."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("classes", "levels", "anchors")),
        *((name, ctypes.c_void_p) for name in ("heights", "widths", "strides", "cell_anchors")),
        ("offset", ctypes.c_float),
        ("box_weights", ctypes.c_float * 4),
        *((name, ctypes.c_float) for name in ("scale_clamp", "score_threshold")),
        ("topk", ctypes.c_int32),
        ("nms_threshold", ctypes.c_float),
        ("max_detections", ctypes.c_int32),
    ]


def native_boxes(
    logits: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    *,
    num_classes: int,
    strides: Sequence[float],
    cell_anchors: Sequence,
    offset: float,
    box_weights: Sequence[float],
    scale_clamp: float,
    score_threshold: float,
    topk: int,
    nms_threshold: float,
    max_detections: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The boxes of an image's raw outputs, by the compiled library.

    Args:
        logits: of each level, finest first, (A K, h, w) for A anchors and K classes.
        deltas: of each level (A 4, h, w).
        num_classes: K.
        strides, cell_anchors, offset, box_weights, scale_clamp, score_threshold, topk,
            nms_threshold, max_detections: as inference.export_info.BoxDecoding has them.

    Returns:
        boxes (n, 4) float32 XYXY in pixels of the network's input and not clipped to it, scores
        (n,) float32 and classes (n,) int64, best first; None where there is no library, or a
        setting is one that it does not take.

    Raises:
        FloatingPointError: a logit or delta is NaN or infinite.
        ValueError: the shapes do not belong together.
    """
    library = native_library()
    if library is None:
        return None
    cells = np.array(cell_anchors, np.float32)  # (levels, A, 4)
    num_levels, num_anchors = cells.shape[:2]
    _check_shapes(logits, deltas, (num_levels, num_anchors * num_classes, num_anchors * 4))
    logits, deltas = (
        [np.ascontiguousarray(a, np.float32) for a in each] for each in (logits, deltas)
    )
    heights, widths = (np.array([a.shape[i] for a in logits], np.int32) for i in (1, 2))
    # No more than there are, for the memory that the plan takes.
    topk = min(topk, max(a.size for a in logits))
    most = min(max_detections, topk * num_levels)
    if topk > _MOST or num_levels > 16:
        return None
    steps = np.array(strides, np.float32)
    settings = _Settings(
        num_classes,
        num_levels,
        num_anchors,
        *(array.ctypes.data for array in (heights, widths, steps, cells)),
        offset,
        (ctypes.c_float * 4)(*box_weights),
        scale_clamp,
        score_threshold,
        topk,
        nms_threshold,
        most,
    )
    boxes, scores = np.empty((most, 4), np.float32), np.empty(most, np.float32)
    classes = np.empty(most, np.int32)
    pointers = ctypes.c_void_p * num_levels
    library.topformer_box_plan_create.restype = ctypes.c_void_p
    plan = ctypes.c_void_p(library.topformer_box_plan_create(ctypes.byref(settings)))
    if not plan:
        return None
    try:
        count = library.topformer_find_boxes(
            plan,
            *(pointers(*(a.ctypes.data for a in each)) for each in (logits, deltas)),
            *(ctypes.c_void_p(array.ctypes.data) for array in (boxes, scores, classes)),
        )
    finally:
        library.topformer_box_plan_free(plan)
    if count < 0:
        raise FloatingPointError("a logit or delta is NaN or infinite")
    # Copies, for the arrays have room for all.
    return boxes[:count].copy(), scores[:count].copy(), classes[:count].astype(np.int64)


def _check_shapes(
    logits: Sequence[np.ndarray], deltas: Sequence[np.ndarray], expected: tuple[int, int, int]
) -> None:
    """ValueError where the library would read what is not there."""
    num_levels, *channels = expected
    for name, levels, count in zip(("logits", "deltas"), (logits, deltas), channels, strict=True):
        if len(levels) != num_levels or any(a.ndim != 3 or a.shape[0] != count for a in levels):
            shapes = [a.shape for a in levels]
            raise ValueError(f"{name} are {shapes}: {num_levels} levels of {count} are expected")
    for a, b in zip(logits, deltas, strict=True):
        if a.shape[1:] != b.shape[1:] or 0 in a.shape:
            raise ValueError(f"a level has logits of {a.shape} and deltas of {b.shape}")
