"""Token Pyramid Module (paper, Section 3.1): an image becomes local tokens at four strides."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..layers import Activation, InvertedResidual, conv_norm
from .variants import STEM_STRIDE, Variant


class TokenPyramid(nn.Module):
    """A stem and inverted-residual blocks; no classifier, few channels.

    Args:
        variant: its `block_*` and `stem_channels` fields.
        norm: name for Detectron2's get_norm.
        activation: function between the convolutions of a block.
    """

    def __init__(self, variant: Variant, *, norm: str, activation: Activation):
        super().__init__()
        self.token_blocks = variant.token_blocks
        channels = variant.stem_channels
        # The stem's activation is ReLU whatever the blocks use.
        self.stem = conv_norm(3, channels, 3, stride=STEM_STRIDE, norm=norm, activation=F.relu)
        self.blocks = nn.ModuleList()
        for kernel_size, expansion, out_channels, stride in zip(
            variant.block_kernel_sizes,
            variant.block_expansions,
            variant.block_channels,
            variant.block_strides,
            strict=True,
        ):
            self.blocks.append(
                InvertedResidual(
                    channels,
                    out_channels,
                    kernel_size=kernel_size,
                    expansion=expansion,
                    stride=stride,
                    norm=norm,
                    activation=activation,
                )
            )
            channels = out_channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the tokens (N, token_channels[i], ceil(H/s), ceil(W/s)), s = 4 .. 32."""
        x = self.stem(x)
        tokens = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.token_blocks:
                tokens.append(x)
        return tokens
