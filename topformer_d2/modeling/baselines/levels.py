"""A Detectron2 backbone around any network that gives one feature map per level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ..layers import check_batch_norm

# The last level of a network is "res5", whatever its stride: the names stay under dilation.
LAST_LEVEL = 5


class LevelsBackbone(Backbone):
    """A network's maps by name; it takes images of any size, so size_divisibility is 0.

    Of an (H, W) image the map at stride s is (ceil(H/s), ceil(W/s)).
    """

    def __init__(
        self,
        network: nn.Module,
        levels: dict[str, ShapeSpec],
        *,
        multiple: int = 1,
        channels_last: bool = False,
    ):
        """
        Args:
            network: images (N, 3, H, W) to a sequence of maps, one for each of `levels`.
            levels: name to channels and stride.
            multiple: images whose sides are not multiples of this are padded with zeros, and the
                maps cropped (padding_multiple).
            channels_last: the network's maps are (N, H, W, C).
        """
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.channels_last = channels_last
        self._out_features = list(levels)
        self._out_feature_strides = {name: shape.stride for name, shape in levels.items()}
        self._out_feature_channels = {name: shape.channels for name, shape in levels.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) normalised RGB to {name: (N, C, ceil(H / s), ceil(W / s))}.

        Raises:
            InputError: in training, the batch leaves BatchNorm a single value a channel.
        """
        strides = self._out_feature_strides
        check_batch_norm(self.network, x, max(strides.values()))
        height, width = x.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        maps = self.network(F.pad(x, (0, right, 0, bottom)) if bottom or right else x)
        if self.channels_last:
            maps = [level.permute(0, 3, 1, 2) for level in maps]
        return {
            name: level[..., : (height + stride - 1) // stride, : (width + stride - 1) // stride]
            for (name, stride), level in zip(strides.items(), maps, strict=True)
        }


class Stages(nn.Module):
    """Modules one after the other, and the maps after those of the given indices."""

    def __init__(self, stages: Sequence[nn.Module], out_indices: Sequence[int]):
        super().__init__()
        self.stages = nn.ModuleList(stages[: max(out_indices) + 1])
        self.out_indices = tuple(out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                maps.append(x)
        return maps


def padding_multiple(
    network: nn.Module, channels: Sequence[int], strides: Sequence[int], *, channels_last: bool
) -> int:
    """What LevelsBackbone pads a network's images to, found by running it on two small ones.

    Networks that round their maps' sizes down, and those that take no other images, need multiples
    of their strides.

    Args:
        network: in training mode, as LevelsBackbone takes it.
        channels, strides: of its maps.
        channels_last: the maps are (N, H, W, C).

    Returns:
        1 where the map at stride s of an (H, W) image is (ceil(H/s), ceil(W/s)).

    Raises:
        ValueError: not even images whose sides are such multiples give maps of 1/s of their size.
        Exception: whatever the network raises for them.
    """
    multiple = math.lcm(*strides)
    # One pixel more than a multiple is where rounding down loses a row of every map.
    odd, even = (2 * multiple + 1, 3 * multiple + 1), (3 * multiple, 4 * multiple)
    network.eval()
    try:
        _check_maps(network, even, channels, strides, channels_last)
        try:
            _check_maps(network, odd, channels, strides, channels_last)
        except Exception:  # networks raise many types for a size that they do not take
            return multiple
        return 1
    finally:
        network.train()


@torch.no_grad()
def _check_maps(
    network: nn.Module,
    size: tuple[int, int],
    channels: Sequence[int],
    strides: Sequence[int],
    channels_last: bool,
) -> None:
    device = next(network.parameters()).device
    maps = network(torch.zeros(1, 3, *size, device=device))
    found = [tuple(x.permute(0, 3, 1, 2).shape if channels_last else x.shape) for x in maps]
    expected = [
        (1, width, *(-(-side // stride) for side in size))
        for width, stride in zip(channels, strides, strict=True)
    ]
    if found != expected:
        raise ValueError(
            f"of an image of {size[0]}x{size[1]} its maps are {found} and not {expected}"
        )


def level_names(count: int) -> list[str]:
    """Names of a network's levels, finest first: 5 are res1 .. res5, 4 are res2 .. res5."""
    return [f"res{LAST_LEVEL - count + 1 + i}" for i in range(count)]


def select_levels(
    model: str,
    names: Sequence[str],
    channels: Sequence[int],
    strides: Sequence[int],
    out_features: Sequence[str],
) -> dict[int, tuple[str, ShapeSpec]]:
    """Index to name and shape of the levels that `out_features` names, in the network's order.

    Raises:
        InputError: the model has no such level, or none is named.
    """
    if not out_features or not set(out_features) <= set(names):
        raise InputError(
            f"MODEL.BASELINE.OUT_FEATURES is {list(out_features)}; {model} has {list(names)}"
        )
    return {
        i: (name, ShapeSpec(channels=channels[i], stride=strides[i]))
        for i, name in enumerate(names)
        if name in out_features
    }
