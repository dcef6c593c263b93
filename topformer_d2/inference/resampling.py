"""Several bilinear resizes along one axis, combined into one set of weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# In a group: it bounds the memory that a cell takes.
_MAX_POSITIONS = 64


@dataclass(frozen=True)
class Axis:
    """Output positions along one side, in groups that lie between the same nodes.

    Attributes:
        size: S, the number of output positions.
        nodes: (G, T) int64, the nodes of each group; one with fewer than T repeats its last.
        group: (S,) int64, the group of each output position.
        positions: (G, M) int64, the output positions of each group; one with fewer than M repeats
            its last.
        weights: (G, M, T) float32, of each position on each node of its group; they add up to 1.
    """

    size: int
    nodes: Tensor
    group: Tensor
    positions: Tensor
    weights: Tensor


@lru_cache(maxsize=64)
def compose_axis(num_nodes: int, steps: tuple[tuple[int, int], ...]) -> Axis:
    """What PyTorch's bilinear resizes (align_corners=False) make of a row of `num_nodes` values.

    Args:
        steps: one (size, kept) a resize: the row is resized to `size` values, of which the first
            `kept` go on.
    """
    # Output position i is the sum of weights[i, t] times node sources[i, t].
    sources = np.arange(num_nodes)[:, None]
    weights = np.ones((num_nodes, 1), np.float32)
    size = num_nodes
    for resized, kept in steps:
        if resized != size:
            lower, fraction = _source_positions(size, resized)
            pair = np.stack([lower, np.minimum(lower + 1, size - 1)], axis=1)
            share = np.stack([1 - fraction, fraction], axis=1)
            sources = sources[pair].reshape(resized, -1)
            weights = (share[:, :, None] * weights[pair]).reshape(resized, -1)
        sources, weights = sources[:kept], weights[:kept]
        size = kept
    return _group(sources, weights, num_nodes)


def _source_positions(num_in: int, num_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Index below and fraction above it, in float32 as PyTorch computes them."""
    scale = np.float32(num_in) / np.float32(num_out)
    half = np.float32(0.5)
    source = np.maximum(scale * (np.arange(num_out, dtype=np.float32) + half) - half, 0)
    lower = np.minimum(source.astype(np.int64), num_in - 1)
    fraction = np.clip(source - lower.astype(np.float32), 0, 1)
    return lower, fraction.astype(np.float32)


def _group(sources: np.ndarray, weights: np.ndarray, num_nodes: int) -> Axis:
    first = np.where(weights > 0, sources, num_nodes).min(axis=1)
    last = np.where(weights > 0, sources, -1).max(axis=1)
    num_taps = int((last - first).max()) + 1
    size = len(sources)
    by_node = np.zeros((size, num_taps), np.float32)
    for source, weight in zip(sources.T, weights.T, strict=True):
        # A source outside of the span has weight 0 and may be added anywhere.
        by_node[np.arange(size), np.clip(source - first, 0, num_taps - 1)] += weight
    is_start = np.ones(size, bool)
    is_start[1:] = first[1:] != first[:-1]
    offset = np.arange(size) - np.flatnonzero(is_start)[np.cumsum(is_start) - 1]
    is_start |= offset % _MAX_POSITIONS == 0
    start = np.flatnonzero(is_start)
    count = np.diff(np.append(start, size))
    end = (start + count - 1)[:, None]
    nodes = np.minimum(first[start][:, None] + np.arange(num_taps), last[end])
    positions = np.minimum(start[:, None] + np.arange(count.max()), end)
    arrays = (nodes, np.cumsum(is_start) - 1, positions, by_node[positions])
    return Axis(size, *(torch.from_numpy(array) for array in arrays))
