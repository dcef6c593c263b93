"""Convolutions made faster for inference; whole models are in test_whole_way.py."""

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from topformer_d2.inference.optimization import optimize_for_inference


@pytest.mark.parametrize("activation", [None, F.relu, F.relu6, F.gelu])
@pytest.mark.parametrize(
    "out_channels, groups, stride, padding, is_product",
    [
        (6, 1, 1, 0, False),
        (6, 6, 1, 0, True),
        (6, 6, 2, 0, False),
        (6, 6, 1, 1, False),
        (12, 6, 1, 0, False),
        (12, 1, 1, 1, False),
    ],
)
def test_folded_convolution(out_channels, groups, stride, padding, is_product, activation):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(out_channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    convolution = Conv2d(
        *(6, out_channels, 1, stride, padding),
        groups=groups,
        bias=False,
        norm=norm,
        activation=activation,
    )
    model = nn.Sequential(convolution).eval()
    folded = optimize_for_inference(model)
    assert isinstance(folded[0], Conv2d) != is_product
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert model[0].dilation == (1, 1)
    x = torch.randn(2, 6, 5, 7) * 4
    before = x.clone()
    torch.testing.assert_close(folded(x), model(x))
    assert torch.equal(x, before)
