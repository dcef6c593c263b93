"""BatchNorm folded into the convolutions before it, for inference."""

from __future__ import annotations

import copy

from detectron2.layers import Conv2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in which Detectron2's convolutions have taken up the BatchNorm that is their `norm`.

    In inference it gives what `model` gives, float32 rounding aside; it cannot be trained. A norm
    that stands on its own, as where levels share a convolution, stays.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, Conv2d) and isinstance(module.norm, nn.BatchNorm2d):
            norm = module.norm
            module.weight, module.bias = fuse_conv_bn_weights(
                *(module.weight, module.bias, norm.running_mean, norm.running_var, norm.eps),
                *(norm.weight, norm.bias),
            )
            module.norm = None
    return folded
