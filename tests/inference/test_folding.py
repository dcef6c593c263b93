"""Convolutions made faster for inference; whole models are in test_whole_way.py."""

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from topformer_d2.inference.folding import fold_batch_norm


@pytest.mark.parametrize("activation", [None, F.relu, F.relu6, F.gelu])
@pytest.mark.parametrize("groups, stride", [(1, 1), (6, 1), (6, 2)])
def test_folded_convolution(groups, stride, activation):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    convolution = Conv2d(
        *(6, 6, 1, stride), groups=groups, bias=False, norm=norm, activation=activation
    )
    model = nn.Sequential(convolution).eval()
    folded = fold_batch_norm(model)
    assert isinstance(folded[0], Conv2d) == (groups == 1 or stride == 2)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert model[0].dilation == (1, 1)
    x = torch.randn(2, 6, 5, 7) * 4
    before = x.clone()
    torch.testing.assert_close(folded(x), model(x))
    assert torch.equal(x, before)
