"""The probability of the label at every fourth pixel, at a fraction of the cost of all pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Rows and columns from one sample to the next; the first is at the corner.
STRIDE = 4


@torch.no_grad()
def sampled_confidence(logits: Tensor, size: Sequence[int], input_size: Sequence[int]) -> Tensor:
    """What label_map gives as `confidence`, at the rows and columns 0, 4, 8, ...

    Bilinear resizing is a product with one matrix for each axis, of which only the samples' rows
    are needed: of 150 classes that takes a tenth of the time.

    Args:
        logits: (K, h, w), finite.
        size: (H, W) of the label map.
        input_size: (height, width) to which the logits are resized first.

    Returns:
        (ceil(H / 4), ceil(W / 4)) float32, the largest softmax probability at these pixels.
    """
    steps = [(int(i), int(s)) for i, s in zip(input_size, size, strict=True)]
    rows, columns = (
        _weights(n, step).to(logits.device) for n, step in zip(logits.shape[1:], steps, strict=True)
    )
    found = rows @ (logits.float() @ columns.T)
    return found.softmax(dim=0).amax(dim=0)


@functools.lru_cache(maxsize=64)
def _weights(nodes: int, steps: tuple[int, ...]) -> Tensor:
    """(samples, nodes): how much each node of an axis is in each sample of the resized one."""
    axis = torch.eye(nodes)[None]
    for side in steps:
        axis = interpolate(axis, side, mode="linear", align_corners=False)
    return axis[0, :, ::STRIDE].T.contiguous()
