"""MODEL.TOPFORMER.PYRAMID_ACTIVATION and GATE: each value's numbers, written out by hand."""

import pytest
import torch
from detectron2.modeling import build_backbone
from torch.nn import functional as F

from tests.helpers import formula_image, formula_weight
from topformer_d2 import get_config

CONFIGS = ["seg_topformer_t", "det_retinanet_topformer_t", "det_retinanet_lite_topformer_t"]
ACTIVATIONS = {"relu": lambda v: v.clamp(min=0), "relu6": lambda v: v.clamp(0, 6)}
GATES = {
    "hardsigmoid": lambda v: (v + 3).clamp(0, 6) / 6,
    "sigmoid": lambda v: 1 / (1 + (-v).exp()),
}


def topformer(name, key, value):
    """The TopFormer of a config with one key set, and formula weights."""
    backbone = build_backbone(get_config(name, [f"MODEL.TOPFORMER.{key}", value]))
    model = getattr(backbone, "bottom_up", backbone).eval()
    state = model.state_dict()
    model.load_state_dict({k: formula_weight(k, list(v.shape)) for k, v in state.items()})
    return model


def convolve(x, conv):
    """A convolution and its norm, without the activation after them."""
    x = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    norm = conv.norm
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return x * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]


@pytest.mark.parametrize("value", ACTIVATIONS)
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_pyramid_activation(name, value):
    activation, pyramid = ACTIVATIONS[value], topformer(name, "PYRAMID_ACTIVATION", value).pyramid
    image = 10 * formula_image(64, 96)
    largest = 0.0
    x = convolve(image, pyramid.stem).clamp(min=0)  # a ReLU with either value
    tokens = []
    for i, block in enumerate(pyramid.blocks):
        y = x
        # The first block does not expand.
        for conv in (block.expand, block.depthwise) if i > 0 else (block.depthwise,):
            before = convolve(y, conv)
            largest = max(largest, before.max().item())
            y = activation(before)
        y = convolve(y, block.project)
        x = x + y if x.shape == y.shape else y
        if i in pyramid.token_blocks:
            tokens.append(x)
    assert largest > 10  # so that a limit of 6 counts
    for found, expected in zip(pyramid(image), tokens, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", GATES)
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_gate(name, value):
    injection = topformer(name, "GATE", value).injection["sim4"]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 64, 7, 9, generator=generator)
    semantics = 3 * torch.randn(2, 64, 2, 3, generator=generator)
    before = convolve(semantics, injection.gate)
    assert before.min() < -4 and before.max() > 4  # where a hard sigmoid is flat
    gate = F.interpolate(GATES[value](before), (7, 9), mode="bilinear", align_corners=False)
    info = convolve(semantics, injection.info)
    info = F.interpolate(info, (7, 9), mode="bilinear", align_corners=False)
    expected = convolve(tokens, injection.local) * gate + info
    torch.testing.assert_close(injection(tokens, semantics), expected, rtol=1e-5, atol=1e-5)
