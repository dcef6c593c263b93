"""What makes global semantics of the tokens: SASE and its alternatives (paper, Tables 2 and 4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.layers import ASPP, Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers import DropPath, conv_norm, resize
from .semantics import FeedForward, SemanticsExtractor, drop_path_rates, pool_tokens
from .variants import Variant

# The paper names PSPNet's and DeepLab's modules without their numbers. Its sizes and costs for Tiny
# (PPM 1.7 M, 0.654 G; ASPP 2.3 M, 0.698 G; 1.7 may be a 1.76 cut, as "none" is 0.369 and stands as
# 0.3) choose the widths, each with a 1x1 convolution back to the tokens' width.
# PPM: 128 gives 1.333 M, 0.630 G; 160 gives 1.758 M, 0.656 G; 192 gives 2.257 M, 0.686 G.
# ASPP: 192 gives 1.754 M, 0.659 G; DeepLab's own 256 gives 2.297 M, 0.693 G.
PPM_CHANNELS = 160
ASPP_CHANNELS = 256
# PSPNet's and DeepLab's own; they change no size.
PPM_BINS = (1, 2, 3, 6)
ASPP_RATES = (6, 12, 18)


class PyramidInput(nn.Module):
    """Tokens of all scales, pooled to 1/factor of the last one's size and concatenated."""

    def __init__(self, token_channels: tuple[int, ...], *, factor: int, norm: str):
        super().__init__()
        self.factor = factor

    def forward(self, tokens: list[Tensor]) -> Tensor:
        """[(N, C_i, H_i, W_i)] to (N, sum(C_i), ceil(H_last / factor), ceil(W_last / factor))."""
        return pool_tokens(tokens, self.factor)


class LastInput(nn.Module):
    """The last scale alone, pooled and expanded to the width of all by a 1x1 convolution and norm.

    Nothing else changes, as the paper's text has it. Pooling and convolution can change places, for
    no activation stands between them; to pool first costs less.
    """

    def __init__(self, token_channels: tuple[int, ...], *, factor: int, norm: str):
        super().__init__()
        self.factor = factor
        self.expand = conv_norm(token_channels[-1], sum(token_channels), norm=norm)

    def forward(self, tokens: list[Tensor]) -> Tensor:
        """Shapes as PyramidInput has them."""
        return self.expand(pool_tokens(tokens[-1:], self.factor))


class FeedForwardBlock(nn.Module):
    """A feed-forward network with a shortcut and drop path."""

    def __init__(self, ffn: FeedForward, *, drop_path_rate: float):
        super().__init__()
        self.ffn = ffn
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.ffn(x))


class PyramidPooling(nn.Module):
    """PSPNet's module: the map and its averages over grids, joined by a 3x3 convolution.

    Args:
        in_channels: of the map.
        channels: of each average, after a 1x1 convolution, and of the output.
        bins: sides of the grids.
        norm: name for Detectron2's get_norm. The average over the whole map has none, as in
            Detectron2's ASPP: a batch of one would leave BatchNorm one value.
    """

    def __init__(self, in_channels: int, channels: int, *, bins: tuple[int, ...], norm: str):
        super().__init__()
        self.bins = bins
        self.branches = nn.ModuleList(
            Conv2d(in_channels, channels, 1, activation=F.relu)
            if side == 1
            else conv_norm(in_channels, channels, norm=norm, activation=F.relu)
            for side in bins
        )
        self.bottleneck = conv_norm(
            in_channels + len(bins) * channels, channels, 3, norm=norm, activation=F.relu
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, channels, H, W)."""
        pooled = (F.adaptive_avg_pool2d(x, side) for side in self.bins)
        branches = (branch(y) for branch, y in zip(self.branches, pooled, strict=True))
        return self.bottleneck(torch.cat([x, *(resize(y, x.shape[-2:]) for y in branches)], dim=1))


def _sase(variant: Variant, *, drop_path_rate: float, norm: str) -> nn.Module:
    return SemanticsExtractor(
        variant.embed_dim,
        num_blocks=variant.num_blocks,
        num_heads=variant.num_heads,
        key_dim=variant.key_dim,
        value_dim=variant.value_dim,
        ffn_ratio=variant.ffn_ratio,
        drop_path_rate=drop_path_rate,
        norm=norm,
    )


def _ffn(variant: Variant, *, drop_path_rate: float, norm: str) -> nn.Module:
    # The paper removes the attention and adds feed-forward networks for a fair comparison. Six
    # instead of Tiny's four give its size and cost (1.4 M, 0.642 G); four would be 1.1 M.
    count = variant.num_blocks * 3 // 2
    return nn.Sequential(
        *(
            FeedForwardBlock(
                FeedForward(variant.embed_dim, ratio=variant.ffn_ratio, norm=norm),
                drop_path_rate=rate,
            )
            for rate in drop_path_rates(drop_path_rate, count)
        )
    )


def _ppm(variant: Variant, *, drop_path_rate: float, norm: str) -> nn.Module:
    context = PyramidPooling(variant.embed_dim, PPM_CHANNELS, bins=PPM_BINS, norm=norm)
    return nn.Sequential(context, conv_norm(PPM_CHANNELS, variant.embed_dim, norm=norm))


def _aspp(variant: Variant, *, drop_path_rate: float, norm: str) -> nn.Module:
    context = ASPP(variant.embed_dim, ASPP_CHANNELS, ASPP_RATES, norm=norm, activation=F.relu)
    return nn.Sequential(context, conv_norm(ASPP_CHANNELS, variant.embed_dim, norm=norm))


def _none(variant: Variant, *, drop_path_rate: float, norm: str) -> nn.Module:
    return nn.Identity()


# MODEL.TOPFORMER.SEMANTICS_INPUT and MODEL.TOPFORMER.SEMANTICS: (N, embed_dim, h, w) to the same.
INPUTS: dict[str, Callable[..., nn.Module]] = {"pyramid": PyramidInput, "last": LastInput}
EXTRACTORS: dict[str, Callable[..., nn.Module]] = {
    "sase": _sase,
    "ffn": _ffn,
    "ppm": _ppm,
    "aspp": _aspp,
    "none": _none,
}
