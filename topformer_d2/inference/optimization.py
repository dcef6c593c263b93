"""Making a PyTorch model faster for inference: folded BatchNorm, faster 1x1 convolutions."""

from __future__ import annotations

import copy

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..modeling.layers import IN_PLACE


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a model that is faster in inference on a CPU; outputs differ by rounding alone.

    - The BatchNorm of each of Detectron2's convolutions (its `norm`) is folded into its weights. A
      norm outside of a convolution is kept, such as where levels share a convolution.
    - Activations after convolutions work in place.
    - 1x1 convolutions run by oneDNN, or as a product where they are depthwise.

    The copy cannot be trained. It is on the same device as `model`.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in folded.modules():
        for name, child in module.named_children():
            if isinstance(child, Conv2d) and isinstance(child.norm, nn.BatchNorm2d):
                setattr(module, name, _fold(child))
            elif isinstance(child, nn.Conv2d):
                use_onednn(child)
    return folded


def rounded_to_float16(model: nn.Module) -> nn.Module:
    """A copy of a model in float32 whose weights are float16's nearest values, for export.

    BatchNorm is folded before, as in optimize_for_inference: a runtime that folds it makes new
    weights, and may cut those off instead of rounding them.
    """
    rounded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in rounded.modules():
        if isinstance(module, Conv2d) and isinstance(module.norm, nn.BatchNorm2d):
            _fold_norm(module)
    for parameter in rounded.parameters():
        parameter.copy_(parameter.half())
    return rounded


def fold_norms(model: nn.Module) -> None:
    """Leave no BatchNorm in a model in inference, in place; outputs differ by rounding alone.

    That of one of Detectron2's convolutions is folded into its weights. Another one, such as where
    levels share a convolution, becomes a product and a sum for each channel. For the converters of
    export formats: XNNPACK's of ExecuTorch 1.5 folds the norms of several levels into the one
    convolution that they share, and each level then has the last one's.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv2d) and isinstance(child.norm, nn.BatchNorm2d):
                _fold_norm(child)
            elif isinstance(child, nn.BatchNorm2d) and not isinstance(module, Conv2d):
                setattr(module, name, _ScaleAndShift(child))


def _fold(convolution: Conv2d) -> nn.Module:
    _fold_norm(convolution)
    convolution.activation = IN_PLACE.get(convolution.activation, convolution.activation)
    is_depthwise = convolution.in_channels == convolution.groups == convolution.out_channels
    if is_depthwise and _is_pointwise(convolution):
        return _Product(convolution)
    use_onednn(convolution)
    return convolution


def _fold_norm(convolution: Conv2d) -> None:
    norm = convolution.norm
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        *(convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps),
        *(norm.weight, norm.bias),
    )
    convolution.norm = None


def use_onednn(convolution: nn.Conv2d) -> None:
    """Have oneDNN compute a 1x1 convolution on a CPU, in half the time; others stay."""
    # Dilation says nothing here, but on one thread PyTorch gives oneDNN those 1x1 convolutions
    # alone that have a stride or a dilation.
    on_cpu = convolution.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if on_cpu and _is_pointwise(convolution):
        convolution.dilation = (2, 2)


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (1, 1)
        and convolution.stride == (1, 1)
        and convolution.padding == (0, 0)
    )


class _Product(nn.Module):
    """A depthwise 1x1 convolution, which PyTorch on one thread does channel by channel."""

    def __init__(self, convolution: Conv2d):
        super().__init__()
        self.weight = nn.Parameter(convolution.weight[None, :, 0], requires_grad=False)
        self.bias = nn.Parameter(convolution.bias[None, :, None, None], requires_grad=False)
        self.activation = convolution.activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation((x * self.weight).add_(self.bias))


class _ScaleAndShift(nn.Module):
    """What a BatchNorm does in inference."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        with torch.no_grad():
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            shift = norm.bias - norm.running_mean * scale
        self.register_buffer("scale", scale[None, :, None, None])
        self.register_buffer("shift", shift[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift
