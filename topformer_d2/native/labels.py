"""label_map.c, called from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .library import native_library

_NOT_FINITE = 1
_MOST_CLASSES = 1 << 16
_MOST_PIXELS = 1 << 24  # along one side
# Logits that are converted at a time, where they are not float32 in rows.
_BAND = 1 << 22


class Logits(Protocol):
    """(K, h, w), as a tensor or TiledLogits."""

    shape: Any

    def __getitem__(self, key: Any) -> Tensor: ...


class _Sizes(ctypes.Structure):
    """topformer_label_sizes."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            "classes",
            *("height", "width"),
            *("input_height", "input_width"),
            *("valid_height", "valid_width"),
            *("label_height", "label_width"),
        )
    ]


class _Plan:
    """topformer_label_plan, of one call of label_map: two threads never share one."""

    def __init__(self, library: ctypes.CDLL, sizes: _Sizes):
        self.library = library
        library.topformer_label_plan_create.restype = ctypes.c_void_p
        pointer = library.topformer_label_plan_create(ctypes.byref(sizes))
        if not pointer:
            raise MemoryError(
                f"no memory for a label map of {sizes.label_height}x{sizes.label_width}"
            )
        self.pointer = ctypes.c_void_p(pointer)

    def __enter__(self) -> _Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.topformer_label_plan_free(self.pointer)

    def rows_needed(self, first: int, stop: int) -> tuple[int, int]:
        """The first and the last row of logits that rows of the label map are made of."""
        found = ctypes.c_int32(), ctypes.c_int32()
        self.library.topformer_label_rows_needed(
            self.pointer, first, stop, *(ctypes.byref(each) for each in found)
        )
        return found[0].value, found[1].value

    def write_rows(
        self, values: Tensor, top: int, first: int, stop: int, labels: Tensor, scores: Tensor | None
    ) -> bool:
        """Write rows of the label map; False where a logit is not finite.

        Args:
            values: (K, rows, w) float32, contiguous: the logits from the row `top` on.
        """
        status = self.library.topformer_label_rows(
            self.pointer,
            ctypes.c_void_p(values.data_ptr()),
            top,
            values.shape[1],
            first,
            stop,
            ctypes.c_void_p(labels.data_ptr()),
            ctypes.c_void_p(None if scores is None else scores.data_ptr()),
        )
        if status not in (0, _NOT_FINITE):
            raise RuntimeError(f"topformer_label_rows gave {status}")
        return status == 0


def native_label_map(
    logits: Logits,
    size: Sequence[int],
    input_size: Sequence[int] | None,
    valid_size: Sequence[int] | None,
    confidence: bool,
) -> tuple[Tensor, Tensor | None] | None:
    """label_map on a CPU by the compiled library, arguments checked before.

    Returns:
        the labels (H, W), uint8 up to 256 classes, else int32, and with `confidence` float32
        (H, W); None where there is no library, or a size is above what it takes.

    Raises:
        FloatingPointError: a logit is NaN or infinite.
    """
    library = native_library()
    num_classes, height, width = logits.shape
    sides = [height, width, *(input_size or (0, 0)), *(valid_size or (0, 0)), *size]
    if library is None or num_classes > _MOST_CLASSES or max(sides) > _MOST_PIXELS:
        return None
    rows, columns = (int(side) for side in size)
    is_whole = (
        isinstance(logits, Tensor) and logits.dtype == torch.float32 and logits.is_contiguous()
    )
    # uint16 labels are read as int16: PyTorch can do little with uint16.
    labels = torch.empty(rows, columns, dtype=torch.uint8 if num_classes <= 256 else torch.int16)
    scores = torch.empty(rows, columns) if confidence else None
    with _Plan(library, _Sizes(num_classes, *(int(side) for side in sides))) as plan:
        nodes = max(1, _BAND // (num_classes * width))
        step = rows if is_whole else max(1, rows * nodes // height)
        for first in range(0, rows, step):
            stop = min(first + step, rows)
            top, last = (0, height - 1) if is_whole else plan.rows_needed(first, stop)
            values = logits if is_whole else logits[:, top : last + 1].float().contiguous()
            if not plan.write_rows(values, top, first, stop, labels, scores):
                raise FloatingPointError
    return labels if num_classes <= 256 else labels.int() & 0xFFFF, scores
