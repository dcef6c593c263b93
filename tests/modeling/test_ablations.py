"""The paper's ablations as config keys: sizes and costs against Tables 2-8, function, errors."""

import math
from decimal import Decimal

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from torch import nn
from torch.nn import functional as F

from tests.helpers import official_state_dict
from topformer_d2 import get_config
from topformer_d2.analysis import agreement, complexity
from topformer_d2.checkpoint import convert_official_state_dict
from topformer_d2.errors import InputError
from topformer_d2.modeling.backbone.extractors import (
    EXTRACTORS,
    FeedForwardBlock,
    LastInput,
    PyramidInput,
    PyramidPooling,
)
from topformer_d2.modeling.backbone.injection import (
    GATES,
    GateInjection,
    InfoInjection,
    SemanticsInjection,
)
from topformer_d2.modeling.heads.fusion import ConcatFusion

TOPFORMER, HEAD = "MODEL.TOPFORMER.", "MODEL.SEM_SEG_HEAD."


def scales(*levels):
    names = str([f"sim{level}" for level in levels])
    return [f"{TOPFORMER}OUT_FEATURES", names, f"{HEAD}IN_FEATURES", names]


def semantics(kind):
    return [f"{TOPFORMER}SEMANTICS", kind, f"{HEAD}FUSE_DEPTHWISE", "False"]


INFO = [f"{TOPFORMER}INJECTION", "info"]

# Table, setting: config's letter, KEY VALUE pairs, our parameters and multiply-accumulates at
# 512x512, the paper's M and G as it prints them (None: not there).
ROWS = {
    "default": ("b", [], 5_062_646, 1_820_188_672, "5.063", "1.820"),
    "2 last": ("b", [f"{TOPFORMER}SEMANTICS_INPUT", "last"], 5_124_854, 1_823_252_480, "5.2", None),
    "3 strides 4-32": ("b", scales(2, 3, 4, 5), 5_088_758, 3_322_863_616, "5.1", "3.32"),
    "3 strides 8-32": ("b", scales(3, 4, 5), 5_062_646, 1_820_188_672, "5.1", "1.82"),
    "3 strides 16-32": ("b", scales(4, 5), 5_011_958, 1_412_227_072, "5.0", "1.41"),
    "4 none": ("t", semantics("none"), 368_854, 573_284_352, "0.3", "0.573"),
    "4 SASE": ("t", semantics("sase"), 1_405_910, 642_695_168, "1.4", "0.643"),
    "4 FFNs": ("t", semantics("ffn"), 1_439_638, 641_654_784, "1.4", "0.642"),
    "4 PSP": ("t", semantics("ppm"), 1_758_230, 655_509_824, "1.7", "0.654"),
    "4 ASPP": ("t", semantics("aspp"), 2_297_206, 693_406_720, "2.3", "0.698"),
    "5 gate": ("b", [f"{TOPFORMER}INJECTION", "gate"], 4_970_998, 1_808_818_176, None, "1.809"),
    "5 info": ("b", INFO, 4_970_998, 1_808_818_176, None, "1.809"),
    "6 sum": ("b", [*INFO, f"{HEAD}FUSION", "sum"], 4_970_998, 1_808_818_176, "4.978", None),
    "6 concat": ("b", [*INFO, f"{HEAD}FUSION", "concat"], 5_037_046, 1_922_167_296, "5.044", None),
    "7 M=128": ("b", [f"{TOPFORMER}SIM_CHANNELS", "128"], 4_856_566, 1_466_654_720, "4.9", "1.5"),
    "7 M=192": ("b", [f"{TOPFORMER}SIM_CHANNELS", "192"], 4_955_510, 1_626_644_480, "5.0", "1.6"),
    "8 stride 32": ("b", [f"{TOPFORMER}TOKEN_STRIDE", "32"], 5_062_646, 2_637_160_448, None, "2.6"),
    "8 stride 128": (
        *("b", [f"{TOPFORMER}TOKEN_STRIDE", "128"], 5_062_646, 1_633_509_376, None, "1.6"),
    ),
}
# How parameters and GMACs agree where they are not within 1%. Table 2's 1x1 convolution weighs
# 0.062 M, so that 5.063 M cannot become 5.2 M by it.
AGREEMENTS = {
    "2 last": ("different", None),
    "4 none": ("cut", "close"),  # by 23%
    "4 FFNs": ("rounded", "close"),
    "4 PSP": ("cut", "close"),
    "7 M=128": ("close", "rounded"),
    "7 M=192": ("close", "rounded"),
    "8 stride 32": (None, "rounded"),
    "8 stride 128": (None, "rounded"),
}


def agrees(count: int, unit: int, printed: str | None) -> str | None:
    """agreement() with a figure as the paper prints it; None where it has none."""
    return printed and agreement(Decimal(count) / unit, Decimal(printed))


# A row of each table; the others are slow.
FAST = {"default", "2 last", "3 strides 4-32", "4 SASE", "5 gate", "6 concat", "7 M=128"}


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=() if row in FAST else pytest.mark.slow) for row in ROWS]
)
def test_sizes_and_costs_are_the_papers(row):
    letter, opts, parameters, macs, paper_parameters, paper_macs = ROWS[row]
    cost = complexity(build_model(get_config(f"seg_topformer_{letter}", opts)), 512, 512)[""]
    assert (cost.parameters, cost.macs) == (parameters, macs)
    found = (agrees(parameters, 10**6, paper_parameters), agrees(macs, 10**9, paper_macs))
    close = tuple(figure and "close" for figure in (paper_parameters, paper_macs))
    assert found == AGREEMENTS.get(row, close)


SWITCHES = [
    [f"{TOPFORMER}SEMANTICS_INPUT", "last"],
    scales(2, 3, 4, 5),
    scales(5),
    *([f"{TOPFORMER}SEMANTICS", kind] for kind in EXTRACTORS),
    [f"{TOPFORMER}INJECTION", "gate"],
    INFO,
    [*INFO, f"{HEAD}FUSION", "sum"],
    [f"{HEAD}FUSION", "concat"],
    [f"{TOPFORMER}TOKEN_STRIDE", "32"],
    [f"{TOPFORMER}TOKEN_STRIDE", "128"],
]


@pytest.mark.parametrize("size", [(97, 161), (130, 33)], ids=str)
@pytest.mark.parametrize("opts", SWITCHES, ids=lambda opts: opts[-1])
def test_forward_and_backward_at_odd_sizes(opts, size):
    torch.manual_seed(0)
    cfg = get_config("seg_topformer_t", [*opts, f"{TOPFORMER}DROP_PATH_RATE", "0.0"])
    model = build_model(cfg).train()
    for name, module in model.named_modules():
        if name.endswith("attention.projection.norm"):
            nn.init.ones_(module.weight)  # the zero that it starts with would hide what is before
    device = model.device
    features = model.backbone(torch.randn(2, 3, *size, device=device))
    stride = min(model.backbone.output_shape()[name].stride for name in features)
    logits = model.sem_seg_head.layers(features)
    assert logits.shape == (2, 150, *(math.ceil(side / stride) for side in size))
    targets = torch.randint(0, 150, (2, *size), device=device)
    _, losses = model.sem_seg_head(features, targets)
    assert torch.isfinite(losses["loss_sem_seg"])
    losses["loss_sem_seg"].backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of all keys leaves a softmax as it is.
    assert [name for name in without if not name.endswith("key.norm.bias")] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(("stride", "sides"), [(32, (4, 6)), (64, (2, 3)), (128, (1, 2))])
def test_token_stride_is_the_pooled_tokens(stride, sides):
    cfg = get_config("seg_topformer_t", [f"{TOPFORMER}TOKEN_STRIDE", str(stride)])
    backbone = build_backbone(cfg).eval()
    seen = []
    backbone.semantics.register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    backbone(torch.zeros(1, 3, 97, 161))
    assert seen == [(1, 208, *sides)]


def test_last_input_sees_the_last_scale_alone():
    channels = (2, 3, 4, 5)
    tokens = [torch.randn(2, c, 24 >> i, 17 >> i) for i, c in enumerate(channels)]
    changed = [*(t + 1 for t in tokens[:3]), tokens[3]]
    last = LastInput(channels, factor=2, norm="BN").eval()
    assert torch.equal(last(tokens), last(changed))
    # The convolution before the pooling gives the same.
    expected = F.adaptive_avg_pool2d(last.expand(tokens[3]), (2, 1))
    torch.testing.assert_close(last(tokens), expected)
    pyramid = PyramidInput(channels, factor=2, norm="BN")
    assert not torch.equal(pyramid(tokens), pyramid(changed))
    assert pyramid(tokens).shape == last(tokens).shape == (2, 14, 2, 1)


def test_ffn_only_has_six_blocks_whose_rates_rise():
    blocks = build_backbone(get_config("seg_topformer_b", semantics("ffn"))).semantics
    assert [type(block) for block in blocks] == [FeedForwardBlock] * 6
    rates = [block.drop_path.rate for block in blocks]
    assert rates == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])


def test_pyramid_pooling_joins_the_map_and_its_averages():
    module = PyramidPooling(3, 2, bins=(1, 2), norm="BN").eval()
    joined = []
    module.bottleneck.register_forward_hook(lambda _, inputs, output: joined.append(inputs[0]))
    x = torch.randn(1, 3, 4, 6)
    assert module(x).shape == (1, 2, 4, 6)
    assert joined[0].shape == (1, 3 + 2 * 2, 4, 6)
    assert torch.equal(joined[0][:, :3], x)
    mean = module.branches[0](x.mean((2, 3), keepdim=True)).expand(1, 2, 4, 6)
    torch.testing.assert_close(joined[0][:, 3:5], mean)
    quarter = module.branches[1](x[..., :2, :3].mean((2, 3), keepdim=True))
    torch.testing.assert_close(joined[0][:, 5:, 0, 0], quarter[..., 0, 0])


def test_no_extractor_hands_the_pooled_tokens_on():
    backbone = build_backbone(get_config("seg_topformer_t", semantics("none")))
    x = torch.randn(1, 208, 2, 3)
    assert torch.equal(backbone.semantics(x), x)


def test_injections_of_one_branch_are_the_module_without_the_other():
    torch.manual_seed(0)
    tokens, given = torch.randn(2, 4, 9, 7), torch.randn(2, 4, 3, 2)
    both = SemanticsInjection(4, 6, gate=GATES["hardsigmoid"], norm="BN").eval()
    gate = GateInjection(4, 6, gate=GATES["hardsigmoid"], norm="BN").eval()
    info = InfoInjection(4, 6, gate=GATES["hardsigmoid"], norm="BN").eval()
    gate.load_state_dict(both.state_dict(), strict=False)
    info.load_state_dict(both.state_dict(), strict=False)
    with torch.no_grad():
        branch = F.interpolate(both.info(given), (9, 7), mode="bilinear", align_corners=False)
        torch.testing.assert_close(gate(tokens, given), both(tokens, given) - branch)
        both.gate.norm.weight.zero_()
        both.gate.norm.bias.fill_(3.0)  # hardsigmoid(3) = 1: the gate is open everywhere
        torch.testing.assert_close(info(tokens, given), both(tokens, given))


def test_concat_reduces_to_the_width_of_one_feature():
    fusion = ConcatFusion(8, 3, norm="BN").eval()
    features = [torch.randn(1, 8, side, side) for side in (9, 5, 3)]
    out = fusion(features)
    assert out.shape == (1, 8, 9, 9)
    assert [conv.out_channels for conv in fusion.reduce] == [3, 3, 2]
    torch.testing.assert_close(out[:, :3], fusion.reduce[0](features[0]))
    coarse = fusion.reduce[2](features[2])
    expected = F.interpolate(coarse, (9, 9), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out[:, 6:], expected)


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_official_weights_start_any_extractor(kind):
    converted, _ = convert_official_state_dict(official_state_dict("t"))
    weights = {key.removeprefix("backbone."): value for key, value in converted.items()}
    backbone = build_backbone(get_config("seg_topformer_t", semantics(kind)))
    backbone.load_state_dict(weights, strict=False)
    for key, value in backbone.pyramid.state_dict().items():
        assert torch.equal(value.cpu(), weights[f"pyramid.{key}"]), key


@pytest.mark.parametrize(
    ("opts", "size", "stride"),
    [
        ([f"{TOPFORMER}TOKEN_STRIDE", "128"], (128, 96), 128),
        ([f"{TOPFORMER}TOKEN_STRIDE", "32"], (32, 32), 32),
        # The injection modules' norms see what the extractor gives.
        (semantics("none"), (64, 64), 64),
    ],
    ids=["128", "32", "none"],
)
def test_training_on_a_single_token_is_a_clear_error(opts, size, stride):
    backbone = build_backbone(get_config("seg_topformer_t", opts)).train()
    with pytest.raises(InputError, match=f"single value at stride {stride},"):
        backbone(torch.zeros(1, 3, *size))
    backbone(torch.zeros(1, 3, size[0] + 1, size[1]))


@pytest.mark.parametrize("kind", ["ppm", "aspp"])
def test_context_modules_train_on_a_batch_of_one(kind):
    backbone = build_backbone(get_config("seg_topformer_t", semantics(kind))).train()
    assert backbone(torch.zeros(1, 3, 65, 64))["sim3"].shape == (1, 128, 9, 8)


@pytest.mark.parametrize(
    ("opts", "names"),
    [
        ([f"{TOPFORMER}SEMANTICS", "asp"], ["SEMANTICS is 'asp'", "did you mean 'aspp'", "none"]),
        ([f"{TOPFORMER}SEMANTICS_INPUT", "first"], ["SEMANTICS_INPUT is 'first'", "pyramid"]),
        ([f"{TOPFORMER}INJECTION", "gates"], ["INJECTION is 'gates'", "did you mean 'gate'"]),
        ([f"{TOPFORMER}TOKEN_STRIDE", "16"], ["TOKEN_STRIDE is 16", "(32, 64, 128)"]),
        ([f"{HEAD}FUSION", "concatenate"], ["FUSION is 'concatenate'", "did you mean 'concat'"]),
        ([f"{HEAD}FUSION", "sum"], ["FUSION 'sum'", "INJECTION to 'info'", "'ours'"]),
        (scales(2, 6), ["OUT_FEATURES", "sim6", "sim5"]),
        ([f"{HEAD}IN_FEATURES", "['sim2', 'sim3']"], ["IN_FEATURES", "sim2", "sim3"]),
    ],
    ids=lambda value: value[-1],
)
def test_wrong_values_name_the_key_and_what_is_known(opts, names):
    with pytest.raises(InputError) as error:
        build_model(get_config("seg_topformer_t", opts))
    for name in names:
        assert name in str(error.value)
