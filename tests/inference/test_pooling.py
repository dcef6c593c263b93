"""Adaptive average pooling without the operator of that name."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from topformer_d2.inference.formats.pooling import ExactPooling, adaptive_avg_pool2d


@pytest.mark.parametrize("size", [(7, 9), (64, 64), (13, 2), (1, 100)])
@pytest.mark.parametrize("cells", [(1, 1), (2, 3), (5, 4), (7, 9)])
def test_equals_pytorchs_at_any_size(size, cells):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(adaptive_avg_pool2d(x, cells), F.adaptive_avg_pool2d(x, cells))


@pytest.mark.parametrize("is_static", [True, False])
@pytest.mark.parametrize("cells", [3, (4, 3), (None, 5)])
def test_stands_in_for_functions_and_modules(is_static, cells):
    x = torch.randn(1, 2, 8, 15, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_avg_pool2d(x, cells)
    with ExactPooling(is_static):
        for given in (F.adaptive_avg_pool2d(x, cells), nn.AdaptiveAvgPool2d(cells)(x)):
            torch.testing.assert_close(given, expected)
