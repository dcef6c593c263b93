"""Building blocks shared by the backbone and the heads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError, look_up
from .sync_batch_norm import SYNCHRONIZED

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {"relu": F.relu, "relu6": F.relu6}
# The backward pass of a convolution or a norm reads its input and never its output. To overwrite
# the output saves a map, and the time to write one.
IN_PLACE: dict[Activation, Activation] = {
    F.relu: torch.relu_,
    F.relu6: partial(F.relu6, inplace=True),
}


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    norm: str,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = None,
) -> Conv2d:
    """Convolution without bias, then `norm` (a name for Detectron2's get_norm), then `activation`.

    ReLU and ReLU6 work in place. The padding is kernel_size // 2, so a map of side s becomes one of
    side ceil(s / stride).
    """
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
        activation=IN_PLACE.get(activation, activation) if activation else None,
    )


def resolve_norm(norm: str) -> str:
    """BN for SyncBN on a single process, and Detectron2's own SyncBN on a CPU.

    Raises:
        InputError: Detectron2 has no norm of that name.
    """
    try:
        get_norm(norm, 32)
    except KeyError:
        raise InputError(f"norm {norm!r} is unknown; use BN, SyncBN, FrozenBN or GN") from None
    if norm == "SyncBN" and comm.get_world_size() == 1:
        log_first_n(logging.INFO, "SyncBN: one process only, using BN instead", n=1, key="message")
        return "BN"
    if norm == "SyncBN" and distributed.get_backend() == "gloo":
        return "naiveSyncBN"  # PyTorch's own SyncBatchNorm runs on GPUs alone
    return norm


def get_activation(name: str) -> Activation:
    """The function behind an activation's name; InputError if there is none."""
    return look_up(ACTIVATIONS, name, "MODEL.TOPFORMER.PYRAMID_ACTIVATION")


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, align_corners=False, to (H, W); `x` itself where it has that size already."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand by 1x1, depthwise k x k of the given stride, project by 1x1.

    The expansion is left out for expansion = 1; the input is added to the output where both have
    the same shape. (N, in_channels, H, W) to (N, out_channels, ceil(H/stride), ceil(W/stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        expansion: int,
        stride: int,
        norm: str,
        activation: Activation,
    ):
        super().__init__()
        hidden = in_channels * expansion
        self.expand = (
            conv_norm(in_channels, hidden, norm=norm, activation=activation)
            if expansion != 1
            else nn.Identity()
        )
        self.depthwise = conv_norm(
            hidden,
            hidden,
            kernel_size,
            stride=stride,
            groups=hidden,
            norm=norm,
            activation=activation,
        )
        self.project = conv_norm(hidden, out_channels, norm=norm)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.has_shortcut else out


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3, then 1x1 with norm and ReLU.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)). Levels of a
    pyramid that share the weights have a norm each, for their statistics differ. Detectron2's
    DepthwiseSeparableConv2d has neither stride nor levels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: str,
        stride: int = 1,
        num_levels: int = 1,
    ):
        super().__init__()
        self.depthwise = Conv2d(
            in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = Conv2d(in_channels, out_channels, 1, bias=norm == "")
        self.norms = nn.ModuleList(
            get_norm(norm, out_channels) or nn.Identity() for _ in range(num_levels)
        )

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        return torch.relu_(self.norms[level](self.pointwise(self.depthwise(x))))


def check_batch_norm(module: nn.Module, x: Tensor, stride: int) -> None:
    """Raise InputError where BatchNorm would have a single value a channel to train on.

    Args:
        module: whose norms see maps of that stride.
        x: the batch of images (N, 3, H, W).
        stride: of the module's coarsest maps.
    """
    if x.shape[0] > 1 or max(x.shape[2:]) > stride:
        return
    if trains_batch_norm(module):
        raise InputError(
            f"training on a batch of one image of {x.shape[2]}x{x.shape[3]} pixels leaves a single "
            f"value at stride {stride}, from which BatchNorm cannot compute a variance: raise "
            f"SOLVER.IMS_PER_BATCH or INPUT.CROP.SIZE (of a classifier INPUT.CLS.SIZE; above "
            f"{stride}), lower SOLVER.ACCUMULATION_STEPS, or set the norm to FrozenBN"
        )


def trains_batch_norm(module: nn.Module) -> bool:
    """Whether a module is in training with a BatchNorm over the batch of this process alone."""
    return module.training and any(
        isinstance(m, _BatchNorm) and not isinstance(m, SYNCHRONIZED) and m.training
        for m in module.modules()
    )


class DropPath(nn.Module):
    """Stochastic depth: in training, each sample's branch is dropped with probability `rate`.

    What is kept is scaled by 1 / (1 - rate). Shape and dtype are the input's.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
