"""The label map of resized logits, without resizing the logits."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..modeling.layers import resize
from .resampling import Axis, compose_axis
from .tiles import TiledLogits

# Numbers in a block of work: few calls to PyTorch, and what they touch fits a CPU's cache.
_BLOCK = 1 << 18
# Logits that are laid out anew at a time.
_BAND = 1 << 22
# Resized logits that are held at a time, where they are: on a CPU, and elsewhere.
_RESIZED = 1 << 22
_RESIZED_ELSEWHERE = 1 << 26
# Pixels a node up to which looking for what need not be resized takes longer than resizing it.
_DENSE = 4
# Candidates up to which comparing them one by one is faster than PyTorch's max with indices.
_FEW = 4
# What all classes that are left out of a softmax may add up to, beside the winner's 1.
_SOFTMAX_TOLERANCE = 1e-4


@torch.no_grad()
def label_map(
    logits: Tensor | TiledLogits,
    size: Sequence[int],
    *,
    input_size: Sequence[int] | None = None,
    valid_size: Sequence[int] | None = None,
    confidence: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The class with the largest resized logit at each pixel.

    It is the argmax of the bilinearly resized logits (align_corners=False), ties and float32
    rounding aside, but on a CPU those are not computed: each is a convex combination of a few nodes
    of the low-resolution map. A class that is the largest at all of them is the answer. Where they
    differ, a class that is below the mean of the cell's winners at every node is below the largest
    of them everywhere in the cell; two to four classes are left nearly everywhere, and these are
    resized. On another device, or to few pixels, all logits are, some classes at a time.

    Args:
        logits: (K, h, w), finite; a tensor or, on a CPU, TiledLogits.
        size: (H, W) of the label map.
        input_size: (height, width) to which the logits are resized first, the network input's;
            None = straight to `size`.
        valid_size: (height, width) of the part of input_size, from the upper left corner, that is
            then resized to `size`; the rest is padding. None = all of it.
        confidence: also return the softmax probability of the winner, to within 1e-4.

    Returns:
        the labels (H, W), uint8 up to 256 classes, else int32; with `confidence` a pair of these
        and float32 (H, W).

    Raises:
        InputError: a logit is NaN or infinite, or a size does not fit.
    """
    _check(logits, size, input_size, valid_size)
    # One (size, kept) a resize.
    steps = [((side, side),) for side in size]
    if input_size is not None:
        kept = input_size if valid_size is None else valid_size
        first = [(int(i), int(k)) for i, k in zip(input_size, kept, strict=True)]
        steps = [(step, *rest) for step, rest in zip(first, steps, strict=True)]
    if logits.device.type != "cpu":
        return _resize_by_classes(logits, steps, confidence, _RESIZED_ELSEWHERE)
    if isinstance(logits, Tensor) and math.prod(size) <= _DENSE * math.prod(logits.shape[1:]):
        return _resize_by_classes(logits, steps, confidence, _RESIZED)
    rows, columns = (compose_axis(n, s) for n, s in zip(logits.shape[1:], steps, strict=True))
    labels = torch.empty(rows.size, columns.size, dtype=_label_type(logits.shape[0]))
    scores = torch.empty(rows.size, columns.size) if confidence else None
    per_band = max(1, _BAND // (logits.shape[0] * logits.shape[2]))
    for start in range(0, len(rows.nodes), per_band):
        groups = slice(start, min(start + per_band, len(rows.nodes)))
        _Band(logits, rows, columns, groups).write(labels, scores)
    return labels if scores is None else (labels, scores)


def _check(logits: Tensor, size, input_size, valid_size) -> None:
    if len(logits.shape) != 3 or 0 in logits.shape:
        raise InputError(f"logits must be (K, h, w), got {tuple(logits.shape)}")
    for name, sides in {"size": size, "input_size": input_size, "valid_size": valid_size}.items():
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise InputError(f"{name} must be (height, width) of 1 or more, got {tuple(sides)}")
    if valid_size is not None and (
        input_size is None or any(v > i for v, i in zip(valid_size, input_size, strict=True))
    ):
        raise InputError(
            f"valid_size {tuple(valid_size)} must be a part of input_size, which is {input_size}"
        )


def _check_finite(logits: Tensor) -> None:
    if not all(torch.isfinite(extreme) for extreme in torch.aminmax(logits)):
        raise InputError(
            "the logits have NaN or infinite values: the weights or the image do not fit the model"
        )


def _label_type(num_classes: int) -> torch.dtype:
    return torch.uint8 if num_classes <= 256 else torch.int32


class _Band:
    """Some rows of cells: what lies between the same nodes in both directions.

    What is computed for many cells has them last, where PyTorch's loops are long.

    Attributes:
        values: (nodes, K), the logits of the band's nodes row by row, a node's side by side.
        winners: (nodes,), the largest's class.
    """

    def __init__(self, logits: Tensor, rows: Axis, columns: Axis, groups: slice):
        first, last = int(rows.nodes[groups.start, 0]), int(rows.nodes[groups.stop - 1, -1])
        values = logits[:, first : last + 1].float()
        _check_finite(values)
        self.values = values.flatten(1).t().contiguous()
        self.winners = self.values.max(dim=1).indices
        self.rows, self.columns, self.groups = rows, columns, groups
        self.row_nodes = (rows.nodes[groups] - first) * logits.shape[2]

    def write(self, labels: Tensor, scores: Tensor | None) -> None:
        """Write the band's pixels into the whole label map and, if wanted, the scores (H, W)."""
        nodes = self.row_nodes[:, None, :, None] + self.columns.nodes[:, None, :]
        nodes = nodes.flatten(2)  # (rows, columns, nodes of a cell)
        corners = self.winners[nodes].unbind(2)
        positions = self.rows.positions[self.groups]
        start, stop = int(positions[0, 0]), int(positions[-1, -1]) + 1
        group = self.rows.group[start:stop] - self.groups.start
        cells = corners[0].to(labels.dtype).index_select(1, self.columns.group)
        labels[start:stop] = cells.index_select(0, group)
        is_open = torch.full(corners[0].shape, scores is not None)
        for corner in corners[1:]:
            is_open |= corner != corners[0]
        y, x = is_open.nonzero(as_tuple=True)
        per_block = max(1, 4 * _BLOCK // (self.values.shape[1] * nodes.shape[2]))
        for block in zip(y.split(per_block), x.split(per_block), strict=True):
            self._decide(*block, nodes[block], labels, scores)

    def _decide(self, y: Tensor, x: Tensor, nodes: Tensor, labels: Tensor, scores) -> None:
        """Write the pixels of the cells in rows `y` and columns `x`, with `nodes` (cells, n)."""
        values = self.values[nodes]  # (cells, n, K)
        winners = self.winners[nodes][:, None, :].expand(-1, nodes.shape[1], -1)
        # Inside the cell the largest value is never below this one's combination.
        least = values.gather(2, winners).mean(dim=2, keepdim=True)
        if scores is not None:
            least = least - math.log(values.shape[2] / _SOFTMAX_TOLERANCE)
        is_candidate = (values >= least).any(dim=1)
        counts, order = is_candidate.sum(dim=1).sort()
        classes = is_candidate[order].nonzero(as_tuple=True)[1]
        start = counts.cumsum(0) - counts
        y, x, nodes = y[order] + self.groups.start, x[order], nodes[order].t()
        for part in self._parts(counts.tolist()):
            count = counts[part]
            rank = torch.arange(int(count[-1]))[:, None]
            # Where there are fewer candidates than in the last cell, the last one is repeated.
            candidates = classes[start[part] + torch.minimum(rank, count - 1)]  # (C, cells)
            index = nodes[:, None, part] * self.values.shape[1] + candidates
            pixels = self._interpolate(self.values.take(index), y[part], x[part])
            best, winner = _largest(pixels, candidates, labels.dtype)
            height_index = self.rows.positions[y[part]].t()[:, None] * labels.shape[1]
            position = height_index + self.columns.positions[x[part]].t()
            labels.view(-1).scatter_(0, position.reshape(-1), winner.reshape(-1))
            if scores is not None:
                odds = (pixels - best).exp_().mul_((rank < count)[:, None, None])
                odds = odds.sum(dim=0).reciprocal_()
                scores.view(-1).scatter_(0, position.reshape(-1), odds.reshape(-1))

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

    def _interpolate(self, values: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Nodes' values (n, C, cells) of cells in rows `y` and columns `x` to pixels.

        Returns:
            (C, rows of a cell, columns of a cell, cells).
        """
        rows = self.rows.weights[y].permute(2, 1, 0).contiguous()  # (nodes, pixels, cells)
        columns = self.columns.weights[x].permute(2, 1, 0).contiguous()
        corners = values.unflatten(0, (len(rows), len(columns)))
        by_row = rows[0] * corners[0, :, :, None]  # (nodes in a row, C, rows of a cell, cells)
        for row, corner in zip(rows[1:], corners[1:], strict=True):
            by_row.addcmul_(row, corner[:, :, None])
        pixels = by_row[0, :, :, None] * columns[0]
        for node, column in zip(by_row[1:], columns[1:], strict=True):
            pixels.addcmul_(node[:, :, None], column)
        return pixels


def _largest(pixels: Tensor, candidates: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The largest of pixels (C, ..., cells), and its class among candidates (C, cells)."""
    candidates = candidates.to(dtype)
    if len(pixels) > _FEW:
        best, index = pixels.max(dim=0)
        winner = candidates.gather(0, index.flatten(0, -2)).view_as(index)
        return best, winner
    best, winner = pixels[0], candidates[0].expand_as(pixels[0])
    for value, candidate in zip(pixels[1:], candidates[1:], strict=True):
        winner = torch.where(value > best, candidate, winner)
        best = torch.maximum(value, best)
    return best, winner


def _resize_by_classes(
    logits: Tensor, steps: Sequence[Sequence[tuple[int, int]]], confidence: bool, most: int
) -> Tensor | tuple[Tensor, Tensor]:
    """label_map by resizing all logits, at most about `most` numbers at a time."""
    largest = max(rows[0] * columns[0] for rows, columns in zip(*steps, strict=True))
    per_block = max(1, most // largest)
    best = labels = total = None
    for first in range(0, len(logits), per_block):
        block = logits[None, first : first + per_block].float()
        _check_finite(block)
        for (height, kept_height), (width, kept_width) in zip(*steps, strict=True):
            block = resize(block, (height, width))[..., :kept_height, :kept_width]
        values, index = block[0].max(dim=0)
        found = (block[0] - values).exp_().sum(dim=0) if confidence else None
        index = index.add_(first).to(_label_type(len(logits)))
        if best is None:
            best, labels, total = values, index, found
            continue
        labels = torch.where(values > best, index, labels)
        new_best = torch.maximum(values, best)
        if confidence:
            total = total * (best - new_best).exp_() + found * (values - new_best).exp_()
        best = new_best
    return (labels, total.reciprocal_()) if confidence else labels
