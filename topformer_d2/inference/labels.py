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
        self.columns = columns
        self.row_nodes = (rows.nodes[groups] - first) * logits.shape[2]
        self.row_weights = rows.weights[groups]
        self.positions = rows.positions[groups]
        self.group = rows.group[self.positions[0, 0] : self.positions[-1, -1] + 1] - groups.start

    def write(self, labels: Tensor, scores: Tensor | None) -> None:
        """Write the band's pixels into the whole label map and, if wanted, the scores (H, W)."""
        nodes = self.row_nodes[:, None, :, None] + self.columns.nodes[:, None, :]
        nodes = nodes.flatten(2)  # (rows, columns, nodes of a cell)
        corners = self.winners[nodes]
        cells = corners[..., 0].to(labels.dtype)
        start, stop = self.positions[0, 0], self.positions[-1, -1] + 1
        labels[start:stop] = cells[self.group].index_select(1, self.columns.group)
        is_open = (corners[..., 1:] != corners[..., :1]).any(dim=2)
        if scores is not None:
            is_open.fill_(True)
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
        for part in self._parts(counts.tolist()):
            cells, count = order[part], counts[part, None]
            rank = torch.arange(int(count[-1]))
            # Where there are fewer candidates than in the last cell, the last one is repeated.
            candidates = classes[start[part, None] + torch.minimum(rank, count - 1)]
            index = candidates[:, None].expand(-1, nodes.shape[1], -1)
            pixels = self._interpolate(values[cells].gather(2, index), y[cells], x[cells])
            position = (
                self.positions[y[cells]][:, :, None],
                self.columns.positions[x[cells]][:, None, :],
            )
            best, winner = pixels.max(dim=0)
            labels[position] = (
                candidates.gather(1, winner.flatten(1)).view_as(winner).to(labels.dtype)
            )
            if scores is not None:
                odds = pixels.sub_(best).exp_().mul_((rank < count).t()[:, :, None, None])
                scores[position] = odds.sum(dim=0).reciprocal_()

    def _parts(self, counts: list[int]) -> Iterator[slice]:
        """Cells in ascending order of their candidates' counts, in blocks of similar ones."""
        pixels = self.positions.shape[1] * self.columns.positions.shape[1]
        start = 0
        while start < len(counts):
            most = counts[start] if counts[start] <= 4 else counts[start] * 5 // 4
            per_block = max(1, _BLOCK // (most * pixels))
            stop = min(bisect_right(counts, most, lo=start), start + per_block)
            yield slice(start, stop)
            start = stop

    def _interpolate(self, values: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Nodes' values (cells, n, C) of cells in rows `y`, columns `x` to pixels.

        Returns:
            (C, cells, rows of a cell, columns of a cell).
        """
        rows, columns = self.row_weights[y], self.columns.weights[x]  # (cells, pixels, nodes)
        corners = values.permute(2, 0, 1).unflatten(2, (rows.shape[2], columns.shape[2]))
        by_row = sum(
            rows[:, :, i, None] * corners[:, :, None, i] for i in range(corners.shape[2])
        )  # (C, cells, rows of a cell, nodes in a row)
        return sum(by_row[..., j, None] * columns[:, None, :, j] for j in range(corners.shape[3]))


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
