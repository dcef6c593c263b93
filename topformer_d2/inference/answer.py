"""Conversion of a network's outputs for an image to a Scene."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from torch import Tensor

from ..data.scene import Scene
from ..errors import InputError
from .backends import NetworkOutput
from .labels import label_map
from .model_info import ModelInfo


def to_scene(
    output: NetworkOutput,
    info: ModelInfo,
    size: tuple[int, int],
    input_size: tuple[int, int],
    confidence: bool,
) -> Scene:
    """What a network found in an image of `size`, given to it at `input_size`.

    Raises:
        InputError: it gave NaN or infinite numbers, or gives no confidence.
    """
    fields = {}
    if output.logits is not None:
        network_size = output.network_size or input_size
        fields = labels_of(
            label_map(output.logits, size, input_size=network_size, confidence=confidence)
        )
    elif output.labels is not None:
        if confidence:
            raise InputError("this file gives labels alone: export it with logits for confidence")
        label = cv2.resize(output.labels, size[::-1], interpolation=cv2.INTER_NEAREST)
        fields["label"] = _narrow(label)
    fields |= boxes_of(output, size, input_size)
    return Scene(size=size, info=info, **fields)


def labels_of(found: Tensor | tuple[Tensor, Tensor]) -> dict[str, Any]:
    """A Scene's label and confidence from what label_map gives."""
    labels, scores = found if isinstance(found, tuple) else (found, None)
    return {
        "label": _narrow(labels.cpu().numpy()),
        "confidence": None if scores is None else scores.cpu().numpy(),
    }


def _narrow(labels: np.ndarray) -> np.ndarray:
    """uint8 as it is, wider integers as uint16."""
    return labels if labels.dtype == np.uint8 else labels.astype(np.uint16)


def boxes_of(
    output: NetworkOutput, size: tuple[int, int], input_size: tuple[int, int]
) -> dict[str, Any]:
    """A Scene's boxes within `size`, of those at `input_size`, without those that have no area."""
    if output.boxes is None:
        return {"scores": np.zeros(0, np.float32)}
    if not (np.isfinite(output.boxes).all() and np.isfinite(output.scores).all()):
        raise InputError(
            "the boxes have NaN or infinite values: the weights or the image do not fit the model"
        )
    height, width = size
    scale = np.array([width / input_size[1], height / input_size[0]] * 2, np.float32)
    boxes = (output.boxes * scale).clip(0, np.array([width, height] * 2, np.float32))
    keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return {
        "boxes": boxes[keep],
        "classes": output.classes[keep],
        "scores": output.scores[keep],
    }
