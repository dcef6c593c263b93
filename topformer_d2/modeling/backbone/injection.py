"""SIM, the Semantics Injection Module (paper, Section 3.3): it puts global semantics into tokens.

Its alternatives (Table 5) keep one of the two branches that come from the semantics.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ..layers import conv_norm, resize

GATES = {"hardsigmoid": F.hardsigmoid, "sigmoid": F.sigmoid}


class SemanticsInjection(nn.Module):
    """SIM: local * resize(gate(semantics)) + resize(info(semantics)), all three of width M.

    Args:
        in_channels: of the local tokens and of their split of the semantics.
        out_channels: M.
        gate: activation of the gate, a value of GATES; it comes before the resizing.
        norm: name for Detectron2's get_norm.
    """

    def __init__(self, in_channels: int, out_channels: int, *, gate: Callable, norm: str):
        super().__init__()
        self.local = conv_norm(in_channels, out_channels, norm=norm)
        self.gate = conv_norm(in_channels, out_channels, norm=norm, activation=gate)
        self.info = conv_norm(in_channels, out_channels, norm=norm)

    def forward(self, tokens: Tensor, semantics: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, in_channels, h, w) to (N, out_channels, H, W)."""
        size = tokens.shape[-2:]
        gate = resize(self.gate(semantics), size)
        return self.local(tokens) * gate + resize(self.info(semantics), size)


class GateInjection(nn.Module):
    """local * resize(gate(semantics)): the paper's "SigmoidAttn". Arguments as above."""

    def __init__(self, in_channels: int, out_channels: int, *, gate: Callable, norm: str):
        super().__init__()
        self.local = conv_norm(in_channels, out_channels, norm=norm)
        self.gate = conv_norm(in_channels, out_channels, norm=norm, activation=gate)

    def forward(self, tokens: Tensor, semantics: Tensor) -> Tensor:
        return self.local(tokens) * resize(self.gate(semantics), tokens.shape[-2:])


class InfoInjection(nn.Module):
    """local + resize(info(semantics)): the paper's "SemInfo". Arguments as above, no gate."""

    def __init__(self, in_channels: int, out_channels: int, *, gate: Callable, norm: str):
        super().__init__()
        self.local = conv_norm(in_channels, out_channels, norm=norm)
        self.info = conv_norm(in_channels, out_channels, norm=norm)

    def forward(self, tokens: Tensor, semantics: Tensor) -> Tensor:
        return self.local(tokens) + resize(self.info(semantics), tokens.shape[-2:])


# MODEL.TOPFORMER.INJECTION
INJECTIONS = {"both": SemanticsInjection, "gate": GateInjection, "info": InfoInjection}
