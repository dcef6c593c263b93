"""Prediction of large images in overlapping tiles, with blended logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

# Tiles begin at multiples of it: of the logits' stride, and of the token stride.
ALIGNMENT = 64
# Share of a tile that it has in common with the next one, at least.
_OVERLAP = 0.25


def tile_starts(side: int, tile: int) -> list[int]:
    """Where tiles begin along one side, the last one ending with it.

    Args:
        side: in pixels; above `tile` a multiple of ALIGNMENT.
        tile: in pixels, a multiple of ALIGNMENT.
    """
    if side <= tile:
        return [0]
    overlap = -(-int(tile * _OVERLAP) // ALIGNMENT) * ALIGNMENT
    step = max(ALIGNMENT, tile - overlap)
    return [*range(0, side - tile, step), side - tile]


def tile_places(size: Sequence[int], tile: int) -> list[tuple[int, int]]:
    """(y, x) of the tiles of an image of (height, width), row by row."""
    rows, columns = (tile_starts(side, tile) for side in size)
    return [(y, x) for y in rows for x in columns]


class TiledLogits:
    """Logits (K, h, w) of a large image, of which a band of rows is held at a time.

    Where tiles overlap, the logits are their mean, weighted by the distance from the tile's edge,
    so that there is no seam. Rows are computed as they are read, from top to bottom:
    `logits[:, first:stop]`, with a `first` that never goes back, as label_map reads them.
    """

    def __init__(self, run: Callable[[np.ndarray, int, int], Tensor], image: np.ndarray, tile: int):
        """
        Args:
            run: from a tile (H, W, 3) of the image and its place (y, x) to its logits.
            image: (H, W, 3); a side longer than `tile` is a multiple of ALIGNMENT.
            tile: longest side of a tile in pixels, a multiple of ALIGNMENT.
        """
        self._run, self._image, self._tile = run, image, tile
        places = [tile_starts(side, tile) for side in image.shape[:2]]
        self._rows, self._columns = places
        first = run(image[:tile, :tile], 0, 0)
        nodes = first.shape[1:]
        several = [n for n, starts in zip(nodes, places, strict=True) if len(starts) > 1]
        self._stride = tile // several[0] if several else tile
        height, width = (
            n if len(starts) == 1 else side // self._stride
            for side, n, starts in zip(image.shape[:2], nodes, places, strict=True)
        )
        self.shape = (first.shape[0], height, width)
        self.device = first.device
        self._top = 0  # the first row that is held
        self._sum = first.new_zeros(first.shape[0], 0, width)
        self._weight = first.new_zeros(0, width)
        self._next = 0
        self._add_row(first)

    def __getitem__(self, key: tuple[slice, slice]) -> Tensor:
        """(K, stop - first, w) for [:, first:stop]."""
        rows = key[1]
        while self._next < len(self._rows) and self._start(self._next) < rows.stop:
            self._add_row()
        passed = rows.start - self._top
        self._sum, self._weight = self._sum[:, passed:], self._weight[passed:]
        self._top = rows.start
        count = rows.stop - rows.start
        return self._sum[:, :count] / self._weight[:count]

    def _start(self, row: int) -> int:
        return self._rows[row] // self._stride

    def _add_row(self, first: Tensor | None = None) -> None:
        """Add the next row of tiles; of its tiles the first may be known."""
        y = self._rows[self._next]
        for x in self._columns:
            tile = self._image[y : y + self._tile, x : x + self._tile]
            logits = first if first is not None and x == 0 else self._run(tile, y, x)
            weight = torch.outer(*(_ramp(n, self._tile // self._stride) for n in logits.shape[1:]))
            top, left = y // self._stride - self._top, x // self._stride
            missing = top + logits.shape[1] - self._sum.shape[1]
            if missing > 0:
                self._sum = torch.nn.functional.pad(self._sum, (0, 0, 0, missing))
                self._weight = torch.nn.functional.pad(self._weight, (0, 0, 0, missing))
            weight = weight.to(self._sum)
            rows, columns = slice(top, top + logits.shape[1]), slice(left, left + logits.shape[2])
            self._sum[:, rows, columns] += logits * weight
            self._weight[rows, columns] += weight
        self._next += 1


def _ramp(count: int, tile: int) -> Tensor:
    """(count,) weights that rise from both ends over the overlap and are level between."""
    from_edge = torch.arange(count) + 1.0
    return torch.minimum(from_edge, from_edge.flip(0)).clamp(max=max(1, int(tile * _OVERLAP)))
