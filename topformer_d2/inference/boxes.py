"""Boxes of a detector's raw outputs, by the description of the file that gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from ..errors import InputError
from ..modeling.meta_arch.decoding import best_boxes, decode_level
from ..native.boxes import native_boxes
from .export_info import BOX_DELTAS, CLASS_LOGITS, BoxDecoding


def boxes_of_outputs(
    outputs: Mapping[str, np.ndarray],
    n: int,
    size: Sequence[int],
    decoding: BoxDecoding,
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes of one image of a batch of raw outputs.

    Args:
        outputs: by name, as ExportInfo has them.
        n: number of the image in the batch.
        size: (height, width) of the network's input.
        decoding: of the file.
        num_classes: of objects.

    Returns:
        boxes (m, 4) float32 XYXY in pixels of the network's input and clipped to it, scores (m,)
        float32, classes (m,) int64, best first.

    Raises:
        InputError: a value is NaN or infinite.
    """
    logits, deltas = (
        [values[n] for name, values in outputs.items() if name.startswith(start)]
        for start in (CLASS_LOGITS, BOX_DELTAS)
    )
    boxes, scores, classes = find_boxes(logits, deltas, decoding, num_classes)
    height, width = size
    return boxes.clip(0, np.array([width, height] * 2, np.float32)), scores, classes


def find_boxes(
    logits: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    decoding: BoxDecoding,
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decoding and NMS, compiled where the library is and else in PyTorch.

    Args:
        logits: of each level, finest first, (A K, h, w) float32.
        deltas: of each level (A 4, h, w) float32.
        decoding: anchors, thresholds and factors.
        num_classes: K.

    Returns:
        boxes (m, 4) float32 XYXY, not clipped; scores (m,) float32, classes (m,) int64, best first.

    Raises:
        InputError: a value is NaN or infinite.
    """
    try:
        found = native_boxes(logits, deltas, num_classes=num_classes, **vars(decoding))
        if found is None:
            found = _in_python(logits, deltas, decoding, num_classes)
    except FloatingPointError as e:
        raise InputError(
            "the detector's outputs have NaN or infinite values: the weights or the image do not "
            "fit the model"
        ) from e
    return found


def _in_python(
    logits: Sequence[np.ndarray],
    deltas: Sequence[np.ndarray],
    decoding: BoxDecoding,
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not all(np.isfinite(values).all() for values in (*logits, *deltas)):
        raise FloatingPointError
    transform = Box2BoxTransform(decoding.box_weights, decoding.scale_clamp)
    levels = [
        decode_level(
            _anchors(decoding, level, values.shape[1:]),
            torch.from_numpy(values),
            torch.from_numpy(shifts),
            transform,
            num_classes=num_classes,
            score_threshold=decoding.score_threshold,
            topk=decoding.topk,
        )
        for level, (values, shifts) in enumerate(zip(logits, deltas, strict=True))
    ]
    boxes, scores, classes = best_boxes(
        levels, nms_threshold=decoding.nms_threshold, most=decoding.max_detections
    )
    return boxes.numpy(), scores.numpy(), classes.numpy()


def _anchors(decoding: BoxDecoding, level: int, size: Sequence[int]) -> Tensor:
    """(h w A, 4) XYXY of a level of `size` (h, w), a position's anchors side by side."""
    y, x = (torch.arange(side, dtype=torch.float32) + decoding.offset for side in size)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    middles = torch.stack((columns, rows, columns, rows), dim=-1) * decoding.strides[level]
    cells = torch.tensor(decoding.cell_anchors[level])
    return (middles.reshape(-1, 1, 4) + cells).reshape(-1, 4)
