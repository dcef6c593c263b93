"""How a segmentation head joins its input features (paper, Table 6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers import conv_norm, resize


class SumFusion(nn.Module):
    """Sum at the first feature's size; no parameters."""

    def __init__(self, channels: int, num_features: int, *, norm: str):
        super().__init__()

    def forward(self, features: list[Tensor]) -> Tensor:
        """[(N, C, H_i, W_i)], finest first, to (N, C, H_0, W_0)."""
        joined = features[0]
        for feature in features[1:]:
            joined = joined + resize(feature, joined.shape[-2:])
        return joined


class ConcatFusion(nn.Module):
    """A 1x1 convolution and norm for each feature, concatenated to the width of one feature.

    Args:
        channels: C, of each feature and of the result; C / num_features come from each feature,
            one more from the first ones where that is not a whole number.
        num_features: how many there are.
        norm: name for Detectron2's get_norm.
    """

    def __init__(self, channels: int, num_features: int, *, norm: str):
        super().__init__()
        width, more = divmod(channels, num_features)
        self.reduce = nn.ModuleList(
            conv_norm(channels, width + (i < more), norm=norm) for i in range(num_features)
        )
        for convolution in self.reduce:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: list[Tensor]) -> Tensor:
        """[(N, C, H_i, W_i)], finest first, to (N, C, H_0, W_0)."""
        size = features[0].shape[-2:]
        reduced = [reduce(x) for reduce, x in zip(self.reduce, features, strict=True)]
        return torch.cat([resize(x, size) for x in reduced], dim=1)


# MODEL.SEM_SEG_HEAD.FUSION. The paper does not draw the other two heads of Table 6. Their sizes,
# 4.978 M and 5.044 M for Base, differ by what ConcatFusion has at M = 256 (66,048), and fit within
# 0.2% with the info branch alone in each injection module (4.971 M and 5.037 M; with both branches
# 5.063 M and 5.129 M). So "sum" is our head on MODEL.TOPFORMER.INJECTION "info": Tables 5 and 6
# report 37.0 mIoU for either.
FUSIONS: dict[str, Callable[..., nn.Module]] = {
    "ours": SumFusion,
    "sum": SumFusion,
    "concat": ConcatFusion,
}
