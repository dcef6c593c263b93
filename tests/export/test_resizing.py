"""Resizing by matrix products, and where the exported graph has it."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from topformer_d2.export import export_model
from topformer_d2.export.network import ExportNetwork, describe
from topformer_d2.export.resizing import MatrixResizing, resize_bilinear
from topformer_d2.inference import Predictor
from topformer_d2.inference.model_info import ModelInfo

CONFIGS = [
    *(f"seg_topformer_{letter}" for letter in "tsb"),
    "det_retinanet_lite_topformer_t",
    "multitask_lite_topformer_t",
]


def interpolate(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    "size, to", [((1, 1), (5, 3)), ((6, 8), (45, 60)), ((7, 9), (7, 33)), ((45, 60), (6, 8))]
)
def test_it_is_interpolate(size, to):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(resize_bilinear(x, to), interpolate(x, to), atol=1e-5, rtol=1e-5)


def count_products(size, to, is_static):
    """Of matrices, in resizing so, as PyTorch runs it."""
    with torch.profiler.profile() as profile, MatrixResizing(is_static):
        result = interpolate(torch.randn(1, 3, *size), to)
    assert tuple(result.shape) == (1, 3, *to)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::matmul")


@pytest.mark.parametrize(
    "size, to, is_static, products",
    [
        ((8, 8), (64, 64), True, 0),
        ((6, 8), (45, 60), True, 2),
        ((60, 80), (119, 159), True, 0),
        ((8, 8), (64, 64), False, 2),
    ],
)
def test_where_it_gains(size, to, is_static, products):
    assert count_products(size, to, is_static) == products


@pytest.mark.parametrize("is_static", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        {"size": (5, 4), "mode": "nearest"},
        {"scale_factor": 2.0},
        {"scale_factor": 2, "mode": "bilinear"},
        {"size": (5, 4), "mode": "bilinear", "align_corners": True},
        {"size": (2, 2), "mode": "bilinear", "antialias": True},
    ],
)
def test_other_resizing_stays(how, is_static):
    x = torch.arange(12.0).view(1, 1, 3, 4)
    expected = F.interpolate(x, **how)
    with MatrixResizing(is_static):
        assert torch.equal(F.interpolate(x, **how), expected)


@pytest.mark.parametrize("is_static", [True, False])
def test_it_stands_in_for_modules(is_static):
    x = torch.arange(12.0).view(1, 1, 3, 4)
    for module in (nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(7, mode="bilinear")):
        expected = module(x)
        with MatrixResizing(is_static):
            torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("size", [(97, 131), (64, 128)])
@pytest.mark.parametrize("config", CONFIGS)
def test_the_networks_numbers_are_the_same(trained, config, size):
    cfg, model, _ = trained(config, shift=False)
    x = torch.randn(1, 3, *size)
    for fixed in (size, None):
        has_boxes = hasattr(model, "head")
        info = describe(model, ModelInfo.from_config(cfg), size=fixed, raw_boxes=has_boxes)
        plain, fast = (ExportNetwork(model, info, matrix_resizing=m) for m in (False, True))
        for expected, given in zip(plain(x), fast(x), strict=True):
            scale = float(expected.abs().max())
            torch.testing.assert_close(given, expected, atol=1e-5 * scale, rtol=0)


def test_files(trained, tmp_path):
    """A file has products where sizes are no multiples of each other, but for the labels."""
    cfg, _, weights = trained("seg_topformer_t_synthetic")
    found = {}
    for size in ((100, 134), (128, 192)):
        path = str(tmp_path / "m.onnx")
        export_model(cfg, weights, path, size=size, labels=True)
        nodes = onnx.load(path).graph.node
        found[size] = [node.name for node in nodes if node.op_type == "Resize"]
    assert found[100, 134] == ["/Resize"] and len(found[128, 192]) == 9
    image = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)
    assert Predictor(path)(image).label.shape == (128, 192)
