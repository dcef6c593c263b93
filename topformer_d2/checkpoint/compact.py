"""Weights that take less room in a file: float16, or 8-bit integers with scales."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# What stands behind the name of a tensor in the name of its scales.
_SCALE = ".int8_scale"


def to_float16(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All floats as float16, the rest as it is."""
    return {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}


def to_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of two and more dimensions as int8, with scales; all other floats as float16.

    Each row along the first dimension, of a convolution an output channel, has its own scale: the
    one with the least squared error of those at which 127 is 0.7 to 1.0 of its largest magnitude.
    """
    packed = to_float16(weights)
    for key, value in weights.items():
        if value.is_floating_point() and value.ndim > 1:
            rows = value.float().flatten(1)
            integers, packed[key + _SCALE] = _least_error(rows)
            packed[key] = integers.view_as(value)
    return packed


def _least_error(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, D) as int8, and the scales (N,) float16 at which they are least wrong.

    The scale of a row that is not finite is NaN.
    """
    largest = rows.abs().amax(1)
    least = torch.full_like(largest, torch.inf)
    integers = torch.zeros_like(rows, dtype=torch.int8)
    scales = torch.full_like(least, torch.nan).half()
    for share in torch.linspace(1.0, 0.7, 31):
        scale = (largest * share / 127).half()
        # A row of values that float16 cannot scale is 0.
        steps = torch.where(scale > 0, scale.float(), torch.inf)[:, None]
        rounded = (rows / steps).round().clamp(-127, 127)
        error = (rounded * scale.float()[:, None] - rows).square().sum(1)
        better = error < least
        least = torch.where(better, error, least)
        integers = torch.where(better[:, None], rounded.char(), integers)
        scales = torch.where(better, scale, scales)
    return integers, scales


def from_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What to_int8 packed, as float32; other weights as they are, in their order."""
    unpacked = {}
    for key, value in weights.items():
        if key.endswith(_SCALE) and key.removesuffix(_SCALE) in weights:
            continue
        scale = weights.get(key + _SCALE)
        if scale is not None:
            value = value.float() * scale.float().view(-1, *[1] * (value.ndim - 1))
        unpacked[key] = value
    return unpacked
