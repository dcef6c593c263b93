"""The paper's other networks: sizes and costs, any image size, and what is said of wrong names."""

import subprocess
import sys

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from tests.helpers import REPOSITORY
from topformer_d2 import get_config
from topformer_d2.analysis import complexity
from topformer_d2.config import list_configs
from topformer_d2.errors import InputError
from topformer_d2.modeling import RawOutput, TopFormerSegmentor
from topformer_d2.modeling.baselines import timm_backbone, torchvision_backbone
from topformer_d2.modeling.baselines.levels import level_names
from topformer_d2.modeling.sync_batch_norm import SYNCHRONIZED

# Parameters with 150 classes (detectors: 80), stride of the logits.
SEGMENTERS = {
    "deeplabv3plus_efficientnet": (16_868_162, 4),
    "deeplabv3plus_mobilenetv2": (15_084_486, 4),
    "deeplabv3plus_shufflenetv2": (16_024_166, 4),
    "fcn8s_mobilenetv2": (9_559_446, 8),
    "hrnet_w18_small": (3_974_810, 4),
    "lite_aspp_mobilenetv2": (2_829_126, 4),
    "lite_aspp_resnet18": (12_336_914, 4),
    "lraspp_mobilenetv3_large": (3_243_468, 8),
    "lraspp_mobilenetv3_large_reduced": (1_769_148, 8),
    "pspnet_mobilenetv2": (13_460_374, 8),
    "raspp_mobilenetv2": (2_208_534, 16),
    "segformer_mit_b0": (3_752_694, 4),
    "semantic_fpn_mobilenetv2": (5_937_046, 4),
}
DETECTORS = {"retinanet_mobilenetv3": 12_310_692, "retinanet_shufflenetv2": 10_398_680}
# GMACs at 512x512; the paper has 2.0, 1.3, 4.4, 2.8 and 8.4.
COSTS = {
    "lraspp_mobilenetv3_large": 2.063,
    "lraspp_mobilenetv3_large_reduced": 1.328,
    "lite_aspp_mobilenetv2": 4.440,
    "raspp_mobilenetv2": 2.825,
    "segformer_mit_b0": 8.478,
}


def build(name, *opts):
    torch.manual_seed(0)
    return build_model(get_config(f"baseline_{name}", ["MODEL.DEVICE", "cpu", *opts]))


def image(height, width, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=g, dtype=torch.uint8)


def assert_every_gradient_is_finite(model, losses):
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_every_config_is_tested():
    names = {name for name in list_configs() if name.startswith("baseline_")}
    assert names == {f"baseline_{name}" for name in [*SEGMENTERS, *DETECTORS]}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenter(name):
    parameters, stride = SEGMENTERS[name]
    model = build(name, "INPUT.CROP.SIZE", "[64, 96]")
    assert isinstance(model, TopFormerSegmentor)
    assert sum(p.numel() for p in model.parameters()) == parameters
    shapes = model.backbone.output_shape()
    with torch.no_grad():
        maps = model.eval().backbone(torch.zeros(1, 3, 65, 97))
        assert {n: tuple(x.shape[1:]) for n, x in maps.items()} == {
            n: (s.channels, -(-65 // s.stride), -(-97 // s.stride)) for n, s in shapes.items()
        }
        assert model.sem_seg_head.layers(maps).shape == (
            *(1, 150),
            *(-(-side // stride) for side in (65, 97)),
        )
        result = model([{"image": image(65, 97), "height": 30, "width": 50}])[0]["sem_seg"]
    assert result.shape == (150, 30, 50)
    assert result.isfinite().all()
    labels = torch.arange(64 * 96).reshape(64, 96) % 150
    losses = model.train()([{"image": image(64, 96, i), "sem_seg": labels} for i in range(2)])
    # Classifiers that start near 0 give each of the 150 classes the same probability.
    assert losses["loss_sem_seg"].item() == pytest.approx(5.01, abs=0.3)
    assert_every_gradient_is_finite(model, losses)


@pytest.mark.parametrize("name", DETECTORS)
def test_detector(name):
    model = build(name)
    assert sum(p.numel() for p in model.parameters()) == DETECTORS[name]
    features = model.backbone(torch.zeros(2, 3, 65, 97))
    assert [tuple(x.shape[1:]) for x in features.values()] == [
        *((256, 9, 13), (256, 5, 7), (256, 3, 4), (256, 2, 2), (256, 1, 1))
    ]
    inputs = [{"image": image(65, 97), "instances": _two_boxes()}]
    with EventStorage():
        losses = model([*inputs, *inputs])
    assert_every_gradient_is_finite(model, losses)


def _two_boxes():
    boxes = torch.tensor([[4.0, 4.0, 50.0, 60.0], [30.0, 10.0, 90.0, 40.0]])
    return Instances((65, 97), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([1, 79]))


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTS)
def test_cost_at_512(name):
    assert complexity(build(name), 512, 512)[""].macs / 1e9 == pytest.approx(COSTS[name], abs=5e-4)


def test_lr_aspp_may_classify_before_it_enlarges():
    head = build("lraspp_mobilenetv3_large").sem_seg_head.eval()
    nn.init.normal_(head.classifier.weight)
    features = {"res3": torch.randn(1, 40, 9, 13), "res5": torch.randn(1, 960, 5, 7)}
    coarse = head.project(features["res5"])
    coarse = coarse * head.gate(features["res5"].mean((2, 3), keepdim=True)).sigmoid()
    enlarged = F.interpolate(coarse, (9, 13), mode="bilinear", align_corners=False)
    expected = head.classifier(enlarged) + head.fine_classifier(features["res3"])
    torch.testing.assert_close(head.layers(features), expected, atol=1e-4, rtol=1e-4)


def test_hrnet_pads_to_32_and_crops():
    backbone = build("hrnet_w18_small").backbone.eval()
    x = torch.randn(1, 3, 40, 64)
    with torch.no_grad():
        padded = backbone(F.pad(x, (0, 0, 0, 24)))
        for name, level in backbone(x).items():
            torch.testing.assert_close(level, padded[name][:, :, : level.shape[2]])


@pytest.mark.parametrize(
    ("name", "features", "channels", "strides"),
    [
        ("convnext_atto", ["res2", "res5"], [40, 320], [4, 32]),
        ("mobilenetv4_conv_small", ["res3", "res4"], [64, 96], [8, 16]),
        ("resnet10t", ["res1", "res5"], [64, 512], [2, 32]),
    ],
)
def test_other_models_of_timm(name, features, channels, strides):
    backbone = timm_backbone(name, features).eval()
    shapes = backbone.output_shape()
    assert list(shapes) == features
    assert [s.channels for s in shapes.values()] == channels
    assert [s.stride for s in shapes.values()] == strides
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [x.shape[1:] for x in maps.values()] == [
        (c, 64 // s, 64 // s) for c, s in zip(channels, strides, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "channels", "strides", "multiple"),
    [
        ("mobilenetv2_050", (8, 16, 16, 48, 160), (2, 4, 8, 16, 32), 1),
        ("convnext_atto", (40, 80, 160, 320), (4, 8, 16, 32), 32),  # rounds down
        pytest.param(
            *("vgg11", (64, 128, 256, 512, 512, 512), (1, 2, 4, 8, 16, 32), 32),
            marks=pytest.mark.slow,
        ),
        ("poolformer_s12", (64, 128, 320, 512), (4, 8, 16, 32), 32),
        ("mambaout_femto", (48, 96, 192, 288), (4, 8, 16, 32), 1),  # channels last
        ("sequencer2d_s", (192, 384, 384), (7, 14, 14), 14),
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768), (4, 8, 16, 32), 32),
        ("vit_tiny_patch16_224", (192, 192, 192), (16, 16, 16), 16),  # of one size by default
    ],
)
def test_timm_models_give_maps_of_sizes_rounded_up(name, channels, strides, multiple):
    names = level_names(len(strides))
    backbone = timm_backbone(name, names)
    assert backbone.training and backbone.multiple == multiple
    shapes = backbone.output_shape()
    assert [(s.channels, s.stride) for s in shapes.values()] == list(
        zip(channels, strides, strict=True)
    )
    for height, width in ((65, 97), (101, 133)):
        with torch.no_grad():
            maps = backbone.eval()(torch.randn(1, 3, height, width))
        assert [tuple(maps[name].shape[1:]) for name in names] == [
            (c, -(-height // s), -(-width // s)) for c, s in zip(channels, strides, strict=True)
        ]


def test_a_transformer_s_levels_are_its_last_blocks():
    blocks = timm_backbone("vit_tiny_patch16_224", ["res4", "res5"]).network.model.blocks
    assert len(blocks) == 12
    assert len(timm_backbone("vit_tiny_patch16_224", ["res3"]).network.model.blocks) == 10


def test_channels_last_maps_are_turned():
    torch.manual_seed(0)
    backbone = timm_backbone("mambaout_femto", ["res3"]).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(backbone(x)["res3"], backbone.network(x)[0].movedim(3, 1))


@pytest.mark.parametrize("make", [timm_backbone, torchvision_backbone])
def test_sync_bn_replaces_batch_norm(make):
    name = "mobilenet_v3_large" if make is torchvision_backbone else "efficientnet_b0"
    kinds = {type(m) for m in make(name, ["res5"], norm="SyncBN").modules()}
    assert any(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert not any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)


@pytest.mark.parametrize("pretrained", [False, True])
def test_weights_are_downloaded_only_when_asked_for(monkeypatch, pretrained):
    import timm

    asked, create = [], timm.create_model

    def record(*args, pretrained=False, **kwargs):
        asked.append(pretrained)
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", record)
    build("raspp_mobilenetv2", "MODEL.BASELINE.PRETRAINED", str(pretrained))
    assert any(asked) == pretrained


@pytest.mark.parametrize(
    ("config", "package"),
    [("raspp_mobilenetv2", "timm"), ("segformer_mit_b0", "transformers")],
)
def test_a_missing_library_is_named(monkeypatch, config, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*pip install timm transformers"):
        build(config)


@pytest.mark.slow
def test_importing_the_package_imports_neither_library():
    script = "import sys, topformer_d2; print({'timm', 'transformers'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert result.stdout.strip() == "set()", result.stderr


def test_norms_are_of_all_processes_also_on_the_cpu(monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_backend", lambda: "gloo")
    norms = [m for m in build("raspp_mobilenetv2").modules() if isinstance(m, _BatchNorm)]
    assert norms and all(isinstance(norm, SYNCHRONIZED) for norm in norms)


BASELINE, HEAD, FPN = "MODEL.BASELINE.", "MODEL.SEM_SEG_HEAD.", "MODEL.FPN."


@pytest.mark.parametrize(
    ("config", "opts", "message"),
    [
        ("raspp_mobilenetv2", (BASELINE + "NAME", "mobilenetv2_10"), "did you mean 'mobilenetv2_1"),
        (
            "raspp_mobilenetv2",
            (BASELINE + "OUTPUT_STRIDE", "32", BASELINE + "NAME", "nest_tiny"),
            r"MODEL\.BASELINE\.NAME is 'nest_tiny'.*any size.*doesn't match model \(224\)",
        ),
        (
            "raspp_mobilenetv2",
            (BASELINE + "OUTPUT_STRIDE", "32", BASELINE + "NAME", "inception_v3"),
            "'inception_v3'.*96x128 its maps are .*2048, 1, 2",
        ),
        ("raspp_mobilenetv2", (BASELINE + "OUT_FEATURES", "['res6']"), "OUT_FEATURES.*res6.*res1"),
        ("raspp_mobilenetv2", (BASELINE + "OUTPUT_STRIDE", "24"), "OUTPUT_STRIDE is 24"),
        ("raspp_mobilenetv2", (BASELINE + "NORM", "GN"), r"BASELINE\.NORM is 'GN'"),
        ("raspp_mobilenetv2", (HEAD + "IN_FEATURES", "['p4']"), "IN_FEATURES names.*p4.*res5"),
        ("raspp_mobilenetv2", (HEAD + "DROPOUT", "1.5"), r"DROPOUT is 1\.5"),
        ("lraspp_mobilenetv3_large", (HEAD + "IN_FEATURES", "['res5']"), "LRASPPHead takes 2"),
        ("lite_aspp_resnet18", (HEAD + "IN_FEATURES", "['res5']"), "takes 2"),
        ("hrnet_w18_small", (BASELINE + "OUTPUT_STRIDE", "16"), "hrnet.*OUTPUT_STRIDE 16"),
        ("segformer_mit_b0", (BASELINE + "NAME", "mit_b9"), "mit_b9.*mit_b0"),
        ("segformer_mit_b0", (BASELINE + "OUTPUT_STRIDE", "16"), "mit_b0 ends at stride 32"),
        ("retinanet_shufflenetv2", (BASELINE + "NAME", "shufflenet"), "shufflenet_v2_x1_0"),
        ("retinanet_shufflenetv2", (BASELINE + "OUTPUT_STRIDE", "16"), "ends at stride 32"),
        (
            "lraspp_mobilenetv3_large_reduced",
            (BASELINE + "PRETRAINED", "True"),
            "no weights of mobilenet_v3_large_reduced",
        ),
        ("retinanet_shufflenetv2", (FPN + "BOTTOM_UP", "nothing"), r"FPN\.BOTTOM_UP is 'nothing'"),
        ("semantic_fpn_mobilenetv2", (FPN + "IN_FEATURES", "['c2']"), "FPN.IN_FEATURES.*c2.*res2"),
    ],
)
def test_errors(config, opts, message):
    with pytest.raises(InputError, match=message):
        build(config, *opts)


def test_fused_attention_is_counted():
    class Model(nn.Module):
        device, tasks, size_divisor, predict = torch.device("cpu"), ("sem_seg",), 1, None

        def network(self, x):
            x = F.scaled_dot_product_attention(x, x[..., :5, :], x[..., :5, :])
            return RawOutput(logits=x)

    assert complexity(Model(), 7, 11)[""].macs == 3 * 7 * 5 * 2 * 11
