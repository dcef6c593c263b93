"""Scale-aware Semantics Extractor (paper, Section 3.2): pooled tokens become global semantics."""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers import IN_PLACE, DropPath, conv_norm


def pool_tokens(tokens: list[Tensor], factor: int) -> Tensor:
    """Average-pool all tokens to 1/factor of the size of the last and concatenate them.

    [(N, C_i, H_i, W_i)] to (N, sum(C_i), ceil(H_last / factor), ceil(W_last / factor)).
    """
    # Not -(-side // factor): in an exported graph division truncates.
    size = tuple((side + factor - 1) // factor for side in tokens[-1].shape[-2:])
    return torch.cat([F.adaptive_avg_pool2d(t, size) for t in tokens], dim=1)


class Attention(nn.Module):
    """Multi-head self-attention over all positions of a map, in 1x1 convolutions.

    The logits are q.k without the usual 1/sqrt(d): the official weights were trained so.
    """

    def __init__(self, dim: int, *, num_heads: int, key_dim: int, value_dim: int, norm: str):
        super().__init__()
        self.num_heads = num_heads
        self.query = conv_norm(dim, num_heads * key_dim, norm=norm)
        self.key = conv_norm(dim, num_heads * key_dim, norm=norm)
        self.value = conv_norm(dim, num_heads * value_dim, norm=norm)
        self.projection = conv_norm(num_heads * value_dim, dim, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same shape."""
        height, width = x.shape[-2:]

        def split_heads(y: Tensor) -> Tensor:  # (N, heads, channels a head, H * W)
            return y.unflatten(1, (self.num_heads, -1)).flatten(3)

        query = split_heads(self.query(x)).transpose(2, 3)
        weights = (query @ split_heads(self.key(x))).softmax(dim=-1)
        out = weights @ split_heads(self.value(x)).transpose(2, 3)
        out = out.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))
        return self.projection(F.relu6(out))


class FeedForward(nn.Module):
    """1x1 expansion, depthwise 3x3 with bias and without a norm, ReLU6, 1x1 projection."""

    def __init__(self, dim: int, *, ratio: int, norm: str):
        super().__init__()
        hidden = dim * ratio
        self.expand = conv_norm(dim, hidden, norm=norm)
        self.depthwise = Conv2d(
            hidden, hidden, 3, padding=1, groups=hidden, activation=IN_PLACE[F.relu6]
        )
        self.project = conv_norm(hidden, dim, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same shape."""
        return self.project(self.depthwise(self.expand(x)))


class TransformerBlock(nn.Module):
    """Attention and feed-forward network, each with a shortcut and drop path."""

    def __init__(self, attention: Attention, ffn: FeedForward, *, drop_path_rate: float):
        super().__init__()
        self.attention = attention
        self.ffn = ffn
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(x))
        return x + self.drop_path(self.ffn(x))


def drop_path_rates(last: float, count: int) -> list[float]:
    """`count` rates that rise linearly from 0 to `last`."""
    return [last * i / max(1, count - 1) for i in range(count)]


class SemanticsExtractor(nn.Module):
    """A stack of transformer blocks on the pooled tokens.

    Args:
        dim: channels in and out.
        num_blocks, num_heads, key_dim, value_dim, ffn_ratio: as in Variant.
        drop_path_rate: rate of the last block; those before it rise to it linearly from 0.
        norm: name for Detectron2's get_norm.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_blocks: int,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        ffn_ratio: int,
        drop_path_rate: float,
        norm: str,
    ):
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(
                    Attention(
                        dim, num_heads=num_heads, key_dim=key_dim, value_dim=value_dim, norm=norm
                    ),
                    FeedForward(dim, ratio=ffn_ratio, norm=norm),
                    drop_path_rate=rate,
                )
                for rate in drop_path_rates(drop_path_rate, num_blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same shape."""
        return self.blocks(x)
