"""Semantics Injection Module (paper, Section 3.3): global semantics are injected into tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ..layers import conv_norm, resize

GATES = {"hardsigmoid": F.hardsigmoid, "sigmoid": F.sigmoid}


class SemanticsInjection(nn.Module):
    """local * resize(gate(semantics)) + resize(info(semantics)), all three of width M.

    Args:
        in_channels: of the local tokens and of their split of the semantics.
        out_channels: M.
        gate: a name in GATES; the gate is activated before it is resized.
        norm: name for Detectron2's get_norm.
    """

    def __init__(self, in_channels: int, out_channels: int, *, gate: str, norm: str):
        super().__init__()
        if gate not in GATES:
            raise InputError(f"MODEL.TOPFORMER.GATE is {gate!r}; known: {list(GATES)}")
        self.local = conv_norm(in_channels, out_channels, norm=norm)
        self.gate = conv_norm(in_channels, out_channels, norm=norm, activation=GATES[gate])
        self.info = conv_norm(in_channels, out_channels, norm=norm)

    def forward(self, tokens: Tensor, semantics: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, in_channels, h, w) to (N, out_channels, H, W)."""
        size = tokens.shape[-2:]
        gate = resize(self.gate(semantics), size)
        return self.local(tokens) * gate + resize(self.info(semantics), size)
