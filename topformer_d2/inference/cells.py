"""The label map of bilinearly resized logits, computed without resizing them.

Words of this module: a node is a pixel of the low-resolution logits. A cell is the set of output
pixels that lie between the same nodes, and so are interpolated from the same few logits. Where one
class is the largest at all nodes of a cell, it is the label of all pixels there. In the other cells
only those classes are interpolated that can be the largest at some pixel.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .resampling import Axis

# Numbers in a block of work: few calls to PyTorch, and little memory.
_BLOCK = 1 << 20
# What all classes that are left out of a softmax may add up to, beside the winner's 1.
_SOFTMAX_TOLERANCE = 1e-4


class Band:
    """A horizontal band of the label map, some rows of cells high; for the CPU.

    In all tensors of many cells, the cells are the last axis: PyTorch and NumPy are fastest where
    the last axis is long.
    """

    def __init__(self, logits: Tensor, rows: Axis, columns: Axis, groups: slice):
        """
        Args:
            logits: (K, rows of nodes, columns of nodes) float32, finite: the rows that these
                cells have.
            rows, columns: of the whole map.
            groups: the band's rows of cells, as `rows` numbers its groups.
        """
        self.values = logits.flatten(1)  # (K, nodes)
        self.shape = logits.shape[1:]
        self.rows, self.columns, self.groups = rows, columns, groups
        self.row_nodes = rows.nodes[groups] - rows.nodes[groups.start, 0]

    def write(self, labels: Tensor, scores: Tensor | None) -> None:
        """Write the band's pixels into the whole label map and, if wanted, the scores (H, W)."""
        classes = torch.arange(len(self.values), dtype=labels.dtype)[:, None]
        winners = largest(self.values, classes)[1].view(self.shape)
        # The winners at each of a cell's nodes: (rows of cells, columns of cells).
        corners = [winners[y][:, x] for y in self.row_nodes.t() for x in self.columns.nodes.t()]
        positions = self.rows.positions[self.groups]
        start, stop = int(positions[0, 0]), int(positions[-1, -1]) + 1
        group = self.rows.group[start:stop] - self.groups.start
        by_column = corners[0].index_select(1, self.columns.group)
        labels[start:stop] = by_column.index_select(0, group)
        is_open = torch.full(corners[0].shape, scores is not None)
        for corner in corners[1:]:
            is_open |= corner != corners[0]
        per_block = max(1, _BLOCK // (len(self.values) * len(corners)))
        for cells in is_open.nonzero().split(per_block):
            y, x = cells.unbind(1)
            nodes = self.row_nodes[y].t()[:, None] * self.shape[1] + self.columns.nodes[x].t()
            nodes = nodes.flatten(0, 1)  # (n, cells)
            self._decide(y, x, nodes, winners.view(-1)[nodes].long(), labels, scores)

    def _decide(
        self,
        y: Tensor,
        x: Tensor,
        nodes: Tensor,
        winners: Tensor,
        labels: Tensor,
        scores: Tensor | None,
    ) -> None:
        """Write the pixels of the cells in rows `y` and columns `x`, with `nodes` (n, cells)."""
        cells, classes = self._candidates(nodes, winners, scores is not None)
        counts, order = cells.bincount(minlength=len(y)).sort()
        first = torch.searchsorted(cells, order)
        y, x, nodes = y[order] + self.groups.start, x[order], nodes.index_select(1, order)
        # (nodes, pixels, cells) and (pixels, cells)
        row_weights, column_weights = (
            axis.weights[i].permute(2, 1, 0).contiguous()
            for axis, i in ((self.rows, y), (self.columns, x))
        )
        position = (self.rows.positions[y].t() * labels.shape[1])[:, None]
        position = position + self.columns.positions[x].t()
        for part in self._parts(counts.tolist()):
            count = counts[part]
            rank = torch.arange(int(count[-1]))[:, None]
            # Where there are fewer candidates than in the last cell, the last one is repeated.
            candidates = classes[first[part] + torch.minimum(rank, count - 1)]  # (C, cells)
            index = candidates * self.values.shape[1] + nodes[:, None, part]
            pixels = _interpolate(
                self.values.take(index), row_weights[..., part], column_weights[..., part]
            )
            best, winner = largest(pixels, candidates.to(labels.dtype)[:, None, None])
            place = position[..., part].reshape(-1)
            labels.view(-1).scatter_(0, place, winner.view(-1))
            if scores is not None:
                odds = (pixels - best).exp_().mul_((rank < count)[:, None, None])
                odds = odds.sum(dim=0).reciprocal_()
                scores.view(-1).scatter_(0, place, odds.view(-1))

    def _candidates(
        self, nodes: Tensor, winners: Tensor, confidence: bool
    ) -> tuple[Tensor, Tensor]:
        """The classes that can be the largest at some pixel of a cell.

        Args:
            nodes: (n, cells), index of each cell's nodes.
            winners: (n, cells), the largest class at each of these nodes.
            confidence: also keep classes whose softmax probability there is not negligible.

        Returns:
            index of the cell and the class of each pair that is kept, sorted by cell. The winners
            at a cell's nodes are always among them.
        """
        values = self.values.index_select(1, nodes.flatten()).unflatten(1, nodes.shape)
        if confidence:
            values = values + math.log(len(self.values) / _SOFTMAX_TOLERANCE)
        width = self.columns.nodes.shape[1]
        corners = winners[[0, width - 1, -width, -1]]
        of_winners = self.values.take(corners[:, None] * self.values.shape[1] + nodes)
        # Take two winners, `one` and `other`. A class cannot be the largest between the nodes if at
        # every node it is below the mean a * one + (1 - a) * other, for one and the same a in 0..1.
        # Each node gives the least share that `one`, or `other`, must have for that; such an a
        # exists where the largest of these two shares add up to less than 1.
        shares = []
        for one, other in zip(of_winners, of_winners.flip(0), strict=True):
            lead = (one - other).masked_fill_(one < other, torch.inf)
            # NaN, of a class that is one of the two, is never below 1.
            shares.append((values - other).div_(lead).amax(dim=1).clamp_(min=0))
        can_win = (shares[0] + shares[3] < 1).logical_or_(shares[1] + shares[2] < 1).logical_not_()
        return can_win.t().nonzero(as_tuple=True)

    def _parts(self, counts: list[int]) -> Iterator[slice]:
        """Cells in ascending order of their candidates' counts, in blocks of similar ones."""
        pixels = self.rows.positions.shape[1] * self.columns.positions.shape[1]
        start = 0
        while start < len(counts):
            # More blocks are more calls, wider ones more repeated candidates.
            most = counts[start] if counts[start] <= 3 else counts[start] * 4 // 3
            per_block = max(1, _BLOCK // (most * pixels))
            stop = min(bisect_right(counts, most, lo=start), start + per_block)
            while stop < len(counts) and (stop + 1 - start) * counts[stop] * pixels < _BLOCK // 8:
                stop += 1
            yield slice(start, stop)
            start = stop


def _interpolate(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Nodes' values (n, C, cells) to pixels.

    Args:
        rows, columns: weights (nodes, pixels, cells) of each cell along either side.

    Returns:
        (C, rows of a cell, columns of a cell, cells).
    """
    corners = values.unflatten(0, (len(rows), len(columns)))
    by_row = rows[0] * corners[0, :, :, None]  # (nodes in a row, C, rows of a cell, cells)
    for row, corner in zip(rows[1:], corners[1:], strict=True):
        by_row.addcmul_(row, corner[:, :, None])
    pixels = by_row[0, :, :, None] * columns[0]
    for node, column in zip(by_row[1:], columns[1:], strict=True):
        pixels.addcmul_(node[:, :, None], column)
    return pixels


def largest(values: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of finite values (C, ...), and its class, the lowest of equal ones.

    NumPy compares several times faster than PyTorch and than either finds an index.

    Args:
        classes: non-negative integers whose shape broadcasts to that of `values`.
    """
    best = values.amax(dim=0)
    is_best = np.equal(values.numpy(), best.numpy()).view(np.uint8)
    numbers = classes.numpy()
    # The largest product is that of the lowest class.
    most = numbers.max()
    return best, torch.from_numpy(most - (is_best * (most - numbers)).max(axis=0))
