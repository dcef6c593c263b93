"""Errors for NaN in a detector's outputs, which decoding would drop without a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InputError

# Beyond it a box's corners or a score's terms leave float32.
_LARGEST = 1e30


def check_finite(*outputs: Sequence[Tensor]) -> None:
    """Raise InputError where a tensor of a detector's head holds NaN, infinity or too large values.

    Not where a graph is recorded, which has no values yet.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return
    tensors = [tensor for level in outputs for tensor in level]
    # Sums are faster to have; that of finite values may yet be too large. One question for all of
    # them, as each waits for a GPU.
    if (torch.stack([values.sum() for values in tensors]).abs() < _LARGEST).all():
        return
    if not all((values.abs() < _LARGEST).all() for values in tensors):
        raise InputError(
            "the detector's outputs have NaN or infinite values, or some beyond "
            f"{_LARGEST:.0e}: the weights or the image do not fit the model"
        )
