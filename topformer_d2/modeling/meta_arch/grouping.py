"""Images of equal size share a batch; others would be padded, which changes their results."""

from __future__ import annotations

from collections import defaultdict


def group_by_size(batched_inputs: list[dict]) -> list[list[int]]:
    """Indices of inputs whose "image" (C, H, W) has equal height and width, in order."""
    groups = defaultdict(list)
    for i, x in enumerate(batched_inputs):
        groups[tuple(x["image"].shape[-2:])].append(i)
    return list(groups.values())
