"""Large maps of inverted residuals, a few channels at a time."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ...modeling.layers import InvertedResidual

# What a group of channels takes, at most: the caches of usual processors hold it and its copies.
_GROUP_BYTES = 4 << 20
# Of a group, at least: as many as a register has, where it has most.
_LEAST_CHANNELS = 16


def group_large_maps(network: nn.Module, example: Tensor) -> None:
    """Have the expanded maps of inverted residuals made and used in groups of channels, in place.

    A runtime that writes a map, activates it, pads it and then convolves it, each for itself, takes
    it from memory four times. A group of its channels stays in the cache meanwhile. A depthwise
    convolution takes each channel by itself, so the numbers stay the same.

    Args:
        network: in inference.
        example: its input (1, 3, H, W) float32; maps are as large as it makes them.
    """
    sizes: dict[InvertedResidual, int] = {}

    def note(block: InvertedResidual, expanded: Tensor) -> None:
        sizes[block] = 4 * expanded.shape[2] * expanded.shape[3]

    blocks = [
        each
        for each in network.modules()
        if isinstance(each, InvertedResidual) and not isinstance(each.expand, nn.Identity)
    ]
    hooks = [
        block.expand.register_forward_hook(lambda _, __, out, block=block: note(block, out))
        for block in blocks
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    for block, size in sizes.items():
        count = max(_GROUP_BYTES // size // _LEAST_CHANNELS, 1) * _LEAST_CHANNELS
        if block.depthwise.out_channels > count:
            block.depthwise = _Grouped(block.expand, block.depthwise, count)
            block.expand = nn.Identity()


class _Grouped(nn.Module):
    """A 1x1 convolution and a depthwise one behind it, for groups of channels one by one."""

    def __init__(self, expand: nn.Module, depthwise: nn.Module, count: int):
        """
        Args:
            expand: Detectron2's Conv2d.
            depthwise: likewise.
            count: channels of a group; the last one may have fewer.
        """
        super().__init__()
        channels = depthwise.out_channels
        parts = [slice(i, min(i + count, channels)) for i in range(0, channels, count)]
        self.expand = nn.ModuleList(_of_channels(expand, part) for part in parts)
        self.depthwise = nn.ModuleList(_of_channels(depthwise, part) for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.expand, self.depthwise, strict=True)
        return torch.cat([depthwise(expand(x)) for expand, depthwise in pairs], dim=1)


def _of_channels(convolution: nn.Module, part: slice) -> nn.Module:
    """A copy that gives some of the output's channels, norm and activation included."""
    piece = copy.deepcopy(convolution)
    channels = piece.out_channels
    for module in filter(None, (piece, piece.norm)):
        for name, values in [*module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(values[part].clone(), requires_grad=False))
        for name, values in [*module.named_buffers(recurse=False)]:
            if values.ndim and len(values) == channels:
                setattr(module, name, values[part].clone())
    piece.out_channels = part.stop - part.start
    if piece.groups > 1:  # a depthwise one
        piece.groups = piece.in_channels = piece.out_channels
    return piece
