"""Any network that gives one map a level, behind Detectron2's backbone interface."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(self, network: nn.Module, levels: dict[str, ShapeSpec], *, multiple: int = 1):
        """
        Args:
            network: images (N, 3, H, W) to a sequence of maps, one for each of `levels`.
            levels: name to channels and stride.
            multiple: the network takes only images whose sides are multiples of this: others are
                padded with zeros, and the maps cropped.
        """
        super().__init__()
        self.network = network
        self.multiple = multiple
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
        return {
            name: level[..., : -(-height // stride), : -(-width // stride)]
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
