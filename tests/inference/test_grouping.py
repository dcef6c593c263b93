"""Inverted residuals in groups of channels: the same numbers from smaller maps."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from topformer_d2.inference.formats.grouping import group_large_maps
from topformer_d2.modeling.layers import InvertedResidual


def make_block(expansion, stride, norm="BN"):
    torch.manual_seed(0)
    block = InvertedResidual(
        *(16, 16), kernel_size=3, expansion=expansion, stride=stride, norm=norm, activation=F.relu
    )
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 2.0)
    return block.eval().requires_grad_(False)


def channels(network):
    """Of the maps that the depthwise convolutions give."""
    depthwise = [each for each in network.modules() if getattr(each, "groups", 1) > 1]
    assert all(each.groups == each.in_channels == each.out_channels for each in depthwise)
    return [each.out_channels for each in depthwise]


@pytest.mark.parametrize(
    ("side", "expansion", "expected"),
    [
        (256, 3, [16, 16, 16]),  # 4 MiB for 16 channels
        (181, 3, [32, 16]),  # 4 MiB for 32.01
        (147, 3, [48]),
        (384, 2, [16, 16]),  # no fewer
        (512, 1, [16]),  # nothing is expanded
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_groups_are_of_the_size_of_a_cache(side, expansion, expected, stride):
    block = make_block(expansion, stride)
    group_large_maps(block, torch.zeros(1, 16, side, side))
    assert channels(block) == expected


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", ""])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_numbers_stay(norm, stride, monkeypatch):
    monkeypatch.setattr("topformer_d2.inference.formats.grouping._GROUP_BYTES", 1)
    network = nn.Sequential(make_block(3, 1, norm), make_block(2, stride, norm))
    x = torch.randn(1, 16, 20, 23)
    expected = network(x)
    group_large_maps(network, x)
    assert channels(network) == [16] * 5
    torch.testing.assert_close(network(x), expected, rtol=1e-6, atol=1e-6)
