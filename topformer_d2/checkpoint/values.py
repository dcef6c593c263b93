"""Checks of the numbers in a weights file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError, summarize


def check_values(weights: Mapping[str, Tensor], path: str) -> None:
    """Raise InputError where weights are not plain numbers, or are NaN or infinite."""
    odd = [
        key
        for key, value in weights.items()
        if value.layout is not torch.strided or value.is_quantized or value.is_meta
    ]
    if odd:
        raise InputError(
            f"{path} has sparse, quantised or empty (meta) tensors, {summarize(odd)}: save them as "
            "plain ones, by .to_dense() or .dequantize()"
        )
    wrong = [
        key
        for key, value in weights.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if wrong:
        raise InputError(
            f"{path} has NaN or infinite values in {summarize(wrong)}. The training that wrote it "
            "had diverged: take a checkpoint from before, and train with a lower SOLVER.BASE_LR"
        )


def check_kinds(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise InputError where integers or complex numbers would become a model's floats."""
    wrong = [
        f"{key} is {value.dtype}"
        for key, value in weights.items()
        if key in own and own[key].is_floating_point() and not value.is_floating_point()
    ]
    if wrong:
        raise InputError(
            f"the weights are not floats as the model's are: {summarize(wrong)}. Those of an "
            "8-bit model cannot be loaded: name the float32 ones that it was made from"
        )
