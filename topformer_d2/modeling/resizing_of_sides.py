"""Bilinear resizing of one side of a map, as a matrix and as intervals between neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Resizing:
    """Bilinear resizing of one side, without aligned corners, of values repeated at both ends.

    Each output lies between two neighbours; of L values there are L + 1 intervals between them.

    Attributes:
        count: outputs.
        matrix: (count, L + 2) from the values to the outputs.
        starts: (count,) the interval of each output, on the CPU.
        places: (slots, intervals) the outputs of each interval in their order; where it has fewer,
            `count`.
        shares: (slots, intervals) where each output lies in its interval, from 0 to 1.
        step: from an output to the next.
    """

    count: int
    matrix: Tensor
    starts: Tensor
    places: Tensor
    shares: Tensor
    step: float

    def band(self, outputs: slice) -> tuple[slice, Tensor]:
        """The values that some outputs are made of, and the matrix that makes them."""
        sources = slice(int(self.starts[outputs.start]), int(self.starts[outputs.stop - 1]) + 2)
        return sources, self.matrix[outputs, sources]

    def split(self, outputs: Tensor) -> Tensor:
        """(N, H, count) to (N, slots, H, intervals), with 0 where there is no output."""
        return F.pad(outputs, (0, 1))[:, :, self.places].transpose(1, 2)

    def join(self, slots: list[Tensor]) -> Tensor:
        """The slots (N, H, intervals) that split has made, back to (N, H, count)."""
        joined = slots[0].new_zeros(*slots[0].shape[:2], self.count + 1)
        for places, values in zip(self.places, slots, strict=True):
            joined[..., places] = values
        return joined[..., :-1]


@lru_cache(maxsize=32)  # crops have one size, and each copy to a GPU would wait for it
def resizing(length: int, count: int, dtype: torch.dtype, device: torch.device) -> Resizing:
    """The resizing from `length` to `count` values; equal calls share it."""
    step = length / count
    outputs = torch.arange(count)
    position = (outputs.double() + 0.5) * step + 0.5
    starts = position.floor().long().clamp(max=length)
    share = position - starts
    matrix = torch.zeros(count, length + 2, dtype=torch.float64)
    matrix[outputs, starts] = 1 - share
    matrix[outputs, starts + 1] = share
    counts = torch.bincount(starts, minlength=length + 1)
    before = counts.cumsum(0) - counts
    places = torch.full((int(counts.max()), length + 1), count)
    places[outputs - before[starts], starts] = outputs
    first = (before.double() + 0.5) * step + 0.5 - torch.arange(length + 1)
    shares = first.to(dtype) + step * torch.arange(len(places)).to(dtype)[:, None]
    return Resizing(
        count, matrix.to(device, dtype), starts, places.to(device), shares.to(device), step
    )
