"""Bilinear resizing as matrix products, which ONNX Runtime computes faster than most Resizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Above it a product takes longer than a Resize; 70 to 80 in ONNX Runtime with AVX-512.
_MAX_WIDTH = 64


def resize_bilinear(x: Tensor, size: Sequence[int | Tensor]) -> Tensor:
    """F.interpolate's (align_corners=False), as two matrix products.

    Args:
        x: (N, C, H, W).
        size: (height, width), also such as tracing sees.
    """
    # Rows first, in products by channel; then columns, in one product for all channels and rows.
    columns = resizing_matrix(x.shape[3], size[1])
    return (resizing_matrix(x.shape[2], size[0]) @ x) @ columns.transpose(0, 1)


def resizing_matrix(length: int | Tensor, cells: int | Tensor) -> Tensor:
    """(cells, length) float32: row i has the weights of the positions that make cell i."""
    cell = torch.arange(cells).float()
    position = torch.arange(length).float()
    source = ((cell + 0.5) * (length / cells) - 0.5).clamp(min=0)
    source = torch.minimum(source, position[-1])
    return (1 - (source.unsqueeze(1) - position).abs()).clamp(min=0)


class MatrixResizing(TorchFunctionMode):
    """Within it bilinear F.interpolate is resize_bilinear, where ONNX Runtime gains by that.

    At sizes that are known and whole multiples of the map's, it has a Resize in the blocked layout
    of its convolutions. All others leave that layout. OpenVINO, whose Resize is fast at any size,
    gains nothing.

    Args:
        is_static: the sizes traced are the only ones.
    """

    def __init__(self, is_static: bool):
        super().__init__()
        self.is_static = is_static

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        if func is not F.interpolate or not _is_plain(**kwargs):
            return func(*args, **(kwargs or {}))
        return self._resize(*args, **kwargs)

    def _resize(self, input: Tensor, size: Any, **kwargs: Any) -> Tensor:  # PyTorch's name
        size = (size,) * 2 if isinstance(size, int | Tensor) else size
        if not self.is_static:
            return resize_bilinear(input, size)
        before, after = ([int(n) for n in sides] for sides in (input.shape[2:], size))
        is_multiple = all(m % n == 0 for n, m in zip(before, after, strict=True))
        if is_multiple or before[1] > _MAX_WIDTH:
            return F.interpolate(input, size=size, **kwargs)
        return resize_bilinear(input, after)


def _is_plain(
    mode: str = "nearest",
    size: Any = None,
    align_corners: bool | None = None,
    antialias: bool = False,
    **_: Any,
) -> bool:
    """Whether F.interpolate with these keywords is what resize_bilinear computes."""
    return mode == "bilinear" and size is not None and not align_corners and not antialias
