"""The backbone as Detectron2 sees it: shapes at any size, gradients, options, errors."""

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone, build_model
from detectron2.utils import comm
from detectron2.utils.logger import _LOG_COUNTER
from torch import distributed, nn

from topformer_d2 import TopFormer, get_config
from topformer_d2.errors import InputError
from topformer_d2.modeling import VARIANTS
from topformer_d2.modeling.backbone.topformer import build_topformer_backbone
from topformer_d2.modeling.backbone.variants import get_variant
from topformer_d2.modeling.layers import DropPath, resolve_norm

STRIDES = {"sim2": 4, "sim3": 8, "sim4": 16, "sim5": 32}


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 100), (97, 255), (129, 65)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_output_shapes_are_rounded_up(variant, size):
    model = TopFormer(variant, out_features=list(STRIDES)).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, *size))
    assert set(outputs) == set(STRIDES)
    for name, stride in STRIDES.items():
        spatial = tuple(math.ceil(side / stride) for side in size)
        assert outputs[name].shape == (2, VARIANTS[variant].sim_channels, *spatial)
        assert model.output_shape()[name].stride == stride
        assert model.output_shape()[name].channels == outputs[name].shape[1]


@pytest.mark.parametrize(("variant", "width"), [("tiny", 128), ("small", 192), ("base", 256)])
def test_registered_backbone_from_config(variant, width):
    assert "build_topformer_backbone" in BACKBONE_REGISTRY
    backbone = build_backbone(get_config(f"seg_topformer_{variant[0]}"))
    assert type(backbone).__name__ == "TopFormer"
    assert backbone.size_divisibility == 0
    shapes = {name: (s.channels, s.stride) for name, s in backbone.output_shape().items()}
    assert shapes == {"sim3": (width, 8), "sim4": (width, 16), "sim5": (width, 32)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant):
    model = TopFormer(variant, drop_path_rate=0.0).train()
    # The zero that each attention's last norm starts with would hide what is before it.
    for block in model.semantics.blocks:
        nn.init.ones_(block.attention.projection.norm.weight)
    outputs = model(torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    sum(x.square().mean() for x in outputs.values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of all keys leaves a softmax as it is, so the keys' bias has none but for rounding.
    assert [name for name in without if not name.endswith("key.norm.bias")] == []


def test_each_number_of_a_variant_has_its_key():
    cfg = get_config(
        "seg_topformer_t",
        [
            *("MODEL.TOPFORMER.BLOCK_CHANNELS", "[16,16,16,24,24,48,48,80,80]"),
            *("MODEL.TOPFORMER.BLOCK_KERNEL_SIZES", "[3,3,3,3,3,3,3,3,3]"),
            *("MODEL.TOPFORMER.BLOCK_EXPANSIONS", "[1,2,2,2,2,2,2,2,2]"),
            *("MODEL.TOPFORMER.BLOCK_STRIDES", "[1,2,1,2,1,2,1,2,1]"),
            *("MODEL.TOPFORMER.STEM_CHANNELS", "8", "MODEL.TOPFORMER.NUM_BLOCKS", "2"),
            *("MODEL.TOPFORMER.NUM_HEADS", "2", "MODEL.TOPFORMER.KEY_DIM", "8"),
            *("MODEL.TOPFORMER.VALUE_DIM", "12", "MODEL.TOPFORMER.FFN_RATIO", "3"),
            *("MODEL.TOPFORMER.SIM_CHANNELS", "40", "MODEL.DEVICE", "cpu"),
        ],
    )
    model = build_backbone(cfg)
    assert model.pyramid.stem.weight.shape == (8, 3, 3, 3)
    assert [b.project.out_channels for b in model.pyramid.blocks][3:] == [24, 24, 48, 48, 80, 80]
    assert {b.depthwise.kernel_size for b in model.pyramid.blocks} == {(3, 3)}
    assert model.pyramid.blocks[1].expand.out_channels == 32
    assert len(model.semantics.blocks) == 2
    dim = 16 + 24 + 48 + 80
    attention, ffn = model.semantics.blocks[0].attention, model.semantics.blocks[0].ffn
    assert attention.query.weight.shape == (16, dim, 1, 1)
    assert attention.value.weight.shape == (24, dim, 1, 1)
    assert ffn.expand.weight.shape == (3 * dim, dim, 1, 1)
    assert model(torch.zeros(2, 3, 96, 64))["sim4"].shape == (2, 40, 6, 4)


@pytest.mark.parametrize(
    ("opts", "names"),
    [
        (["MODEL.TOPFORMER.VARIANT", "huge"], ["VARIANT", "'huge'", "tiny, small, base"]),
        (["MODEL.TOPFORMER.BLOCK_CHANNELS", "[16,16]"], ["BLOCK_CHANNELS has 2", "STRIDES has 9"]),
        (["MODEL.TOPFORMER.BLOCK_STRIDES", "[1,2,1,2,1,2,1,1,1]"], ["BLOCK_STRIDES", "16, 32"]),
        (["MODEL.TOPFORMER.BLOCK_CHANNELS", "16"], ["BLOCK_CHANNELS is 16", "a list of"]),
        (["MODEL.TOPFORMER.NUM_HEADS", "four"], ["NUM_HEADS is 'four'", "a positive integer"]),
        (["MODEL.TOPFORMER.SIM_CHANNELS", "65537"], ["SIM_CHANNELS is 65537", "up to 65536"]),
        (["MODEL.TOPFORMER.BLOCK_CHANNELS", "[65537]"], ["BLOCK_CHANNELS is", "up to 65536"]),
        (["MODEL.TOPFORMER.NUM_HEADS", "0"], ["NUM_HEADS is 0", "positive integer"]),
        (["MODEL.TOPFORMER.OUT_FEATURES", "['sim9']"], ["OUT_FEATURES", "sim9", "sim5"]),
        (["MODEL.TOPFORMER.NORM", "Foo"], ["norm 'Foo'", "FrozenBN"]),
        (["MODEL.TOPFORMER.DROP_PATH_RATE", "1.5"], ["DROP_PATH_RATE is 1.5"]),
        (["MODEL.TOPFORMER.GATE", "tanh"], ["GATE", "'tanh'", "hardsigmoid"]),
        (["MODEL.TOPFORMER.PYRAMID_ACTIVATION", "gelu"], ["PYRAMID_ACTIVATION", "relu6"]),
        (["MODEL.PIXEL_MEAN", "[0.0]", "MODEL.PIXEL_STD", "[1.0]"], ["PIXEL_MEAN", "1"]),
    ],
)
def test_bad_config_names_the_key_and_what_is_known(opts, names):
    with pytest.raises(InputError) as error:
        build_backbone(get_config("seg_topformer_t", opts))
    for name in names:
        assert name in str(error.value)


def test_paper_options_change_the_function():
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64) * 3
    official = TopFormer("tiny").eval()
    for options in ({"pyramid_activation": "relu6"}, {"gate": "sigmoid"}):
        paper = TopFormer("tiny", **options).eval()
        paper.load_state_dict(official.state_dict())
        difference = (paper(image)["sim3"] - official(image)["sim3"]).abs().max()
        assert difference > 1e-3, options


def test_training_on_a_single_token_is_a_clear_error():
    model = TopFormer("tiny").train()
    for size in ((32, 32), (64, 64), (33, 64)):
        message = rf"{size[0]}x{size[1]}.*IMS_PER_BATCH.*CROP\.SIZE"
        with pytest.raises(InputError, match=message):
            model(torch.zeros(1, 3, *size))
    model(torch.zeros(2, 3, 32, 32))
    model(torch.zeros(2, 3, 64, 64))
    model(torch.zeros(1, 3, 65, 64))
    model.eval()(torch.zeros(1, 3, 32, 32))
    TopFormer("tiny", norm="FrozenBN").train()(torch.zeros(1, 3, 64, 64))


def test_initialisation_follows_the_official_one():
    torch.manual_seed(0)
    model = TopFormer("base")
    expand = model.pyramid.blocks[8].expand.weight  # 960 of 160, 1x1: std sqrt(2 / 960)
    assert expand.std().item() == pytest.approx(math.sqrt(2 / 960), rel=0.02)
    depthwise = model.pyramid.blocks[8].depthwise.weight  # 5x5, one output a group
    assert depthwise.std().item() == pytest.approx(math.sqrt(2 / 25), rel=0.02)
    for block in model.semantics.blocks:
        assert not block.attention.projection.norm.weight.any()
        assert not block.ffn.depthwise.bias.any()
        assert (block.ffn.project.norm.weight == 1).all()


def test_drop_path_rates_rise_linearly():
    rates = [block.drop_path.rate for block in TopFormer("small").semantics.blocks]
    assert rates == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    drop = DropPath(0.25).train()
    torch.manual_seed(0)
    out = drop(torch.ones(4000, 2, 1, 1))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (out[:, 0] == out[:, 1]).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(out), out)


def test_sync_bn_falls_back_on_one_process_with_one_log_line(caplog):
    _LOG_COUNTER.clear()
    cfg = get_config("seg_topformer_t", ["MODEL.TOPFORMER.NORM", "SyncBN"])
    with caplog.at_level("INFO"):
        backbone = build_model(cfg).backbone
    assert [r.message for r in caplog.records if "SyncBN" in r.message] == [
        "SyncBN: one process only, using BN instead"
    ]
    kinds = {type(m) for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.BatchNorm2d}


def test_variant_fields_are_validated_without_a_config():
    assert get_variant("tiny").token_blocks == (2, 4, 6, 8)
    assert get_variant("base").token_channels == (32, 64, 128, 160)
    assert get_variant("small", sim_channels=64).sim_channels == 64
    with pytest.raises(InputError, match="huge"):
        TopFormer("huge")


def test_input_shape_is_detectron2s():
    backbone = BACKBONE_REGISTRY.get("build_topformer_backbone")(
        get_config("seg_topformer_s"), ShapeSpec(channels=3)
    )
    assert isinstance(backbone, TopFormer)


def test_wrong_arguments_without_a_config():
    with pytest.raises(InputError, match=r"DROP_PATH_RATE is 1\.0"):
        TopFormer("tiny", drop_path_rate=1.0)
    cfg = get_config("seg_topformer_t")
    with pytest.raises(InputError, match="PIXEL_MEAN has 4"):
        build_topformer_backbone(cfg, ShapeSpec(channels=4))


def test_weights_of_another_variant_are_refused():
    small = {f"backbone.{key}": value for key, value in TopFormer("small").state_dict().items()}
    model = nn.ModuleDict({"backbone": TopFormer("tiny")})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"fit only \d+ .*MODEL\.TOPFORMER\.VARIANT"):
        model.load_state_dict(small, strict=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("backend", "processes", "expected"),
    [("gloo", 1, "BN"), ("gloo", 2, "naiveSyncBN"), ("nccl", 2, "SyncBN")],
)
def test_the_norm_that_processes_share(monkeypatch, backend, processes, expected):
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    monkeypatch.setattr(distributed, "get_backend", lambda: backend)
    assert resolve_norm("SyncBN") == expected and resolve_norm("GN") == "GN"
