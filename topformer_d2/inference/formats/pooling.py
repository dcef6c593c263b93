"""Adaptive average pooling in operators that ONNX has, exact at any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def adaptive_avg_pool2d(x: Tensor, size: Sequence) -> Tensor:
    """PyTorch's, as two matrix products.

    Args:
        x: (N, C, H, W).
        size: (height, width), also such as tracing sees.
    """
    # Columns first: with the matrix to the right it is one product for all rows and channels.
    columns = averaging_matrix(x.shape[3], size[1])
    return averaging_matrix(x.shape[2], size[0]) @ (x @ columns.transpose(0, 1))


def averaging_matrix(length: int | Tensor, cells: int | Tensor) -> Tensor:
    """(cells, length) float32: row i has 1 / count at the positions that cell i averages.

    With n positions and m cells these are floor(i n / m) up to, but not with, ceil((i + 1) n / m).
    """
    cell = torch.arange(cells).unsqueeze(1)
    position = torch.arange(length).unsqueeze(0)
    # What is truncated here is never negative, so this is the floor; in ONNX it is one node.
    start = torch.div(cell * length, cells, rounding_mode="trunc")
    stop = torch.div((cell + 1) * length + cells - 1, cells, rounding_mode="trunc")
    inside = (position >= start) & (position < stop)
    return inside.float() / (stop - start).float()


class Pooling(TorchFunctionMode):
    """A context in which F.adaptive_avg_pool2d is what a subclass has as `pool`."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is not F.adaptive_avg_pool2d:
            return func(*args, **(kwargs or {}))
        return self._called(*args, **(kwargs or {}))

    def _called(self, input: Tensor, output_size: Any) -> Tensor:  # PyTorch's names, for keywords
        return self.pool(
            input, (output_size,) * 2 if isinstance(output_size, int | Tensor) else output_size
        )

    def pool(self, x: Tensor, size: Sequence) -> Tensor:
        """(N, C, H, W) to (N, C, *size); a side of None is the map's own."""
        raise NotImplementedError


class ExactPooling(Pooling):
    """A context in which F.adaptive_avg_pool2d can be exported at any size.

    Args:
        is_static: the sizes traced are the only ones: where they divide, it is avg_pool2d.
    """

    def __init__(self, is_static: bool):
        super().__init__()
        self.is_static = is_static

    def pool(self, x: Tensor, size: Sequence) -> Tensor:
        size = [n if m is None else m for m, n in zip(size, x.shape[2:], strict=True)]
        if not self.is_static:
            return adaptive_avg_pool2d(x, size)
        steps = [divmod(int(n), int(m)) for n, m in zip(x.shape[2:], size, strict=True)]
        if any(rest for _, rest in steps):
            return adaptive_avg_pool2d(x, size)
        return F.avg_pool2d(x, [step for step, _ in steps])
