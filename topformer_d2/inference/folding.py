"""A network made faster for inference in PyTorch."""

from __future__ import annotations

import copy
from functools import partial

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

_IN_PLACE = {F.relu: torch.relu_, F.relu6: partial(F.relu6, inplace=True)}


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in which Detectron2's convolutions have taken up the BatchNorm that is their `norm`.

    Their activations then write over what the convolutions gave, and a depthwise one of 1x1, for
    which PyTorch on one thread calls a convolution for each channel, becomes a product. In
    inference the copy gives what `model` gives, float32 rounding aside; it cannot be trained. A
    norm that stands on its own, as where levels share a convolution, stays.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in folded.modules():
        for name, child in module.named_children():
            if isinstance(child, Conv2d) and isinstance(child.norm, nn.BatchNorm2d):
                setattr(module, name, _fold(child))
    return folded


def _fold(convolution: Conv2d) -> nn.Module:
    norm = convolution.norm
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        *(convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps),
        *(norm.weight, norm.bias),
    )
    convolution.norm = None
    convolution.activation = _IN_PLACE.get(convolution.activation, convolution.activation)
    is_product = convolution.weight.shape[1:] == (1, 1, 1) and convolution.stride == (1, 1)
    return _Product(convolution) if is_product else convolution


class _Product(nn.Module):
    """A depthwise 1x1 convolution."""

    def __init__(self, convolution: Conv2d):
        super().__init__()
        self.weight = nn.Parameter(convolution.weight[None, :, 0], requires_grad=False)
        self.bias = nn.Parameter(convolution.bias[None, :, None, None], requires_grad=False)
        self.activation = convolution.activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation((x * self.weight).add_(self.bias))
