"""A model's costs by module and by part."""

import time

import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model

from tests.helpers import REPOSITORY, topformer
from topformer_d2 import get_config
from topformer_d2.analysis import (
    Part,
    complexity,
    draw_parts,
    format_parts,
    part_names,
    profile_parts,
    shares,
)

TOPFORMER_PARTS = ["token pyramid", "semantics extractor", "semantics injection"]
# Parameters of the official Tiny (150 classes), and its GMACs at 512x512.
TINY = {
    "token pyramid": 256_832,
    "semantics extractor": 1_037_056,
    "semantics injection": 76_032,
    "segmentation head": 19_734,
    "other": 0,
}


def build(name, *opts):
    return build_model(get_config(name, [*opts, "MODEL.DEVICE", "cpu"]))


@pytest.fixture(scope="module")
def tiny():
    return build("seg_topformer_t")


def test_activations_of_known_modules(tiny):
    costs = complexity(tiny, 64, 64)

    def size(name):
        return costs[name].activation_bytes

    # A ReLU after a norm overwrites the norm's tensor.
    stem = 16 * 32 * 32 * 4
    assert size("backbone.pyramid.stem.norm") == stem
    assert size("backbone.pyramid.stem") == stem
    # Without an activation its own is the norm's.
    assert size("backbone.semantics.blocks.0.attention.query") == 4 * 16 * 1 * 1 * 4
    # Dropout and drop path hand on what they get.
    assert size("sem_seg_head.dropout") == size("backbone.semantics.blocks.0.drop_path") == 0
    logits, fused = 150 * 8 * 8 * 4, 128 * 8 * 8 * 4
    assert size("sem_seg_head.classifier") == logits
    # The sum and the fusing convolution's norm.
    assert size("sem_seg_head") == 2 * fused + logits
    assert size("") == size("backbone") + size("sem_seg_head")


def test_activations_scale_with_the_number_of_pixels(tiny):
    small, large = (complexity(tiny, size, size)[""].activation_bytes for size in (128, 512))
    assert large == 16 * small


def test_a_module_called_at_every_level_counts_each_time():
    model = build("det_retinanet_lite_topformer_t", "MODEL.RETINANET.NUM_CLASSES", "3")
    positions = sum((128 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    assert complexity(model, 128, 128)["head.cls_score"].activation_bytes == positions * 27 * 4


def hooks(model):
    return [(*m._forward_hooks.values(), *m._forward_pre_hooks.values()) for m in model.modules()]


def test_counting_leaves_the_model_as_it_was(tiny):
    tiny.train()
    tiny.backbone.eval()
    before = hooks(tiny)
    complexity(tiny, 64, 64)
    profile_parts(tiny, 64, 64, 1)
    assert tiny.training and tiny.sem_seg_head.training and not tiny.backbone.training
    assert "forward" not in vars(tiny.sem_seg_head)
    assert hooks(tiny) == before
    assert {p.device.type for p in tiny.parameters()} == {"cpu"}


def test_the_resizing_of_a_head_is_its_own(tiny):
    costs = complexity(tiny, 512, 512)
    assert costs[""].macs == costs["backbone"].macs + costs["sem_seg_head"].macs
    assert round(costs["sem_seg_head"].macs / 1e9, 4) == 0.0844


def test_parts_of_a_segmenter(tiny):
    parts = profile_parts(tiny, 128, 128, 2)
    assert {part.label: part.parameters for part in parts} == TINY
    whole = complexity(tiny, 128, 128)[""]
    assert sum(part.macs for part in parts) == whole.macs
    assert sum(part.activation_bytes for part in parts) == whole.activation_bytes
    for values in shares(parts).values():
        assert values.sum() == pytest.approx(1, abs=1e-12) and (values >= 0).all()
    assert shares(parts)["parameters"][1] == pytest.approx(1_037_056 / 1_389_654)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "labels"),
    [
        (
            "multitask_topformer_t",
            [*TOPFORMER_PARTS, "feature pyramid", "segmentation head", "detection head"],
        ),
        ("det_retinanet_lite_topformer_t", [*TOPFORMER_PARTS, "feature pyramid", "detection head"]),
    ],
)
def test_parts_of_detectors(config, labels):
    model = build(config)
    parts = profile_parts(model, 128, 128, 1)
    assert [part.label for part in parts] == [*labels, "other"]
    costs = complexity(model, 128, 128)
    assert sum(part.parameters for part in parts) == costs[""].parameters
    assert sum(part.macs for part in parts) == costs[""].macs
    found = {part.label: part for part in parts}
    pyramid = costs["backbone"].parameters - costs["backbone.bottom_up"].parameters
    assert found["feature pyramid"].parameters == pyramid
    assert all(part.milliseconds > 0 for part in parts)


def test_parts_of_another_backbone():
    cfg = get_config(
        "seg_topformer_t", ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"]
    )
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3"]
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p2", "p3"]
    assert list(part_names(build_model(cfg)).values()) == [
        *("other", "backbone", "feature pyramid", "segmentation head")
    ]


@pytest.mark.parametrize(
    ("module", "label"),
    [
        ("backbone.pyramid.stem", "token pyramid"),
        pytest.param("backbone.semantics.blocks", "semantics extractor", marks=pytest.mark.slow),
        pytest.param("backbone.injection.sim4.gate", "semantics injection", marks=pytest.mark.slow),
        ("sem_seg_head.fuse", "segmentation head"),
    ],
)
def test_time_is_charged_to_the_part_that_takes_it(module, label):
    model = build("seg_topformer_t")
    model.get_submodule(module).register_forward_pre_hook(lambda *_: time.sleep(0.2))
    times = {part.label: part.milliseconds for part in profile_parts(model, 64, 64, 1)}
    assert times.pop(label) >= 200
    assert max(times.values()) < 200


def test_parts_are_printed_with_their_shares():
    parts = [Part("a", 3_000_000, 10**9, 2**20, 30.0), Part("other", 1_000_000, 10**9, 0, 10.0)]
    rows = [line.split() for line in format_parts(parts).splitlines()[2:]]
    assert rows == [
        ["a", "3.000", "75.0%", "1.000", "50.0%", "1.000", "100.0%", "30.000", "75.0%"],
        ["other", "1.000", "25.0%", "1.000", "50.0%", "0.000", "0.0%", "10.000", "25.0%"],
        ["all", "4.000", "100.0%", "2.000", "100.0%", "1.000", "100.0%", "40.000", "100.0%"],
    ]


def test_chart_has_the_shares():
    parts = [Part("a", 1, 2, 4, 3.0), Part("other", 3, 2, 0, 1.0)]
    chart = draw_parts(parts, "title")
    assert chart.dtype == np.uint8 and chart.shape[2] == 3
    blue, grey = ((chart == color).all(axis=2) for color in ((0, 114, 178), (187, 187, 187)))
    # The rows of a bar that no number crosses: of the four bars from top to bottom.
    bars = np.flatnonzero(np.diff(np.r_[0, (blue | grey)[:, : chart.shape[1]].sum(1) > 300, 0]))
    found = []
    for top in bars[::2][:4]:
        a, b = blue[top + 2].sum(), grey[top + 2].sum()
        found.append(a / (a + b))
    assert found == pytest.approx([0.25, 0.5, 1.0, 0.75], abs=0.005)


def test_the_tool(tmp_path):
    config = REPOSITORY / "configs/seg_topformer_t.yaml"
    chart = tmp_path / "new" / "chart.png"
    arguments = ["--size", "64", "96", "--repetitions", "2", "--chart", chart]
    done = topformer("analyze", "--config-file", config, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1,389,654" in done.stdout and "seg_topformer_t.yaml, 64x96" in done.stdout
    assert all(f"\n{label} " in done.stdout for label in TINY)
    assert cv2.imread(str(chart)).shape[1] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tables", "--chart", "x.png"], "--chart and KEY VALUE pairs go with --config-file"),
        (["--tables", "--repetitions", "30"], "--size, --depth, --repetitions, --chart and KEY"),
        (["--tables", "--size", "512", "512"], "go with --config-file"),
        (["--config-file", "x", "--repetitions", "0"], "--repetitions 0; 1 is the least"),
        (["--config-file", "x", "--chart", "x.txt"], "the name of a picture ends in"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    done = topformer("analyze", *arguments)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
