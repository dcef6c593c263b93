"""RetinaNet on TopFormer: shapes at any size, sizes and costs, losses, decoding."""

import copy

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, RetinaNet, build_model
from detectron2.modeling.backbone.fpn import FPN
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from tests.helpers import VARIANT_OF
from topformer_d2 import TopFormer, get_config
from topformer_d2.analysis import complexity
from topformer_d2.errors import InputError
from topformer_d2.modeling import LitePyramid, LiteRetinaNetHead, TopFormerFPN, adapt
from topformer_d2.modeling.meta_arch.decoding import best_boxes

KINDS = ["", "lite_"]


def build(kind="lite_", letter="t", *opts):
    torch.manual_seed(0)
    return build_model(get_config(f"det_retinanet_{kind}topformer_{letter}", opts))


def sample(height, width, boxes=(), classes=(), seed=0):
    """A training sample of noise with boxes (XYXY)."""
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances}


@pytest.mark.parametrize("pyramid", ["fpn", "lite"])
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 130), (1, 200)], ids=str)
def test_pyramid_shapes_are_rounded_up(pyramid, size):
    bottom_up = TopFormer("tiny")
    names = ["sim3", "sim4", "sim5"]
    if pyramid == "fpn":
        from detectron2.modeling.backbone.fpn import LastLevelP6P7

        model = TopFormerFPN(bottom_up, names, 24, top_block=LastLevelP6P7(128, 24, "sim5"))
        width = 24
    else:
        model, width = LitePyramid(bottom_up, names), 128
    with torch.no_grad():
        out = model.eval()(torch.zeros(1, 3, *size))
    assert model.size_divisibility == 0
    assert list(out) == ["p3", "p4", "p5", "p6", "p7"] == list(model.output_shape())
    for n, (name, x) in enumerate(out.items(), start=3):
        assert tuple(x.shape) == (1, width, -(-size[0] // 2**n), -(-size[1] // 2**n))
        assert model.output_shape()[name] == ShapeSpec(channels=width, stride=2**n)


def test_fpn_equals_detectron2s_where_that_one_works():
    bottom_up = TopFormer("tiny")
    ours = TopFormerFPN(bottom_up, ["sim3", "sim4", "sim5"], 16, fuse_type="avg").eval()
    theirs = FPN(bottom_up, ["sim3", "sim4", "sim5"], 16, fuse_type="avg").eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for name, feature in theirs(x).items():
            torch.testing.assert_close(ours(x)[name], feature)


class Maps(Backbone):
    """Stands for a backbone with these (channels, stride) as "a", "b", ..."""

    def __init__(self, *shapes):
        super().__init__()
        self.shapes = {"abc"[i]: ShapeSpec(channels=c, stride=s) for i, (c, s) in enumerate(shapes)}

    def forward(self, x):
        raise NotImplementedError

    def output_shape(self):
        return self.shapes


def test_pyramids_of_wrong_features_are_refused():
    with pytest.raises(InputError, match=r"features of one width"):
        LitePyramid(Maps((8, 8), (9, 16)), "ab")
    with pytest.raises(InputError, match=r"strides are \[8, 32\].*twice"):
        LitePyramid(Maps((8, 8), (8, 32)), "ab")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("['res3']", r"MODEL\.FPN\.IN_FEATURES is \['res3'\].*gives \['sim3'"),
        ("['sim4', 'sim5']", r"MODEL\.RETINANET\.IN_FEATURES is \['p3'.*make \['p4', 'p5', 'p6'"),
    ],
    ids=["unknown", "levels"],
)
def test_features_that_do_not_fit_each_other_are_named(kind, features, message):
    with pytest.raises(InputError, match=message):
        build(kind, "t", "MODEL.FPN.IN_FEATURES", features)


def test_a_batch_too_small_for_its_norms_is_named():
    model = build("lite_")
    with pytest.raises(InputError, match=r"one image of 128x100 .*stride 128.*above 128"):
        model([sample(128, 100)])
    with EventStorage():
        assert model([sample(128, 130)])
        assert build("lite_", "t", "MODEL.RETINANET.NORM", "GN", "MODEL.FPN.NORM", "GN")


def test_results_do_not_depend_on_the_neighbours():
    model = spread_scores(build("lite_"))
    inputs = [sample(90, 120), sample(64, 50, seed=1), sample(90, 120, seed=2)]
    with torch.no_grad():
        together = model(inputs)
        for x, found in zip(inputs, together, strict=True):
            alone = model([x])[0]["instances"]
            torch.testing.assert_close(alone.scores, found["instances"].scores)
            assert alone.image_size == x["image"].shape[1:]


def test_mixed_precision_scores_are_float32():
    model = spread_scores(build("lite_"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model([sample(90, 120)])[0]["instances"]
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32 and len(found) > 9


# Whole, backbone with its pyramid, TopFormer alone; GMACs at 800x1333 (full) or 512x512 (lite).
FIGURES = {
    ("", "t"): (10_587_700, 1_369_920, 159.929, 2.064),
    ("", "s"): (12_382_852, 2_968_464, 161.996, 3.732),
    ("", "b"): (14_038_356, 4_820_576, 163.372, 5.508),
    ("lite_", "t"): (1_578_292, 1_369_920, 1.4094, 0.4917),
    ("lite_", "s"): (3_354_372, 2_968_464, 2.5365, 0.8908),
    ("lite_", "b"): (5_028_948, 4_820_576, 2.2333, 1.3157),
}
LARGE = {("", "t"), ("", "s"), ("", "b")}


@pytest.mark.parametrize(
    ("kind", "letter"),
    # At 800x1333 the head takes seconds.
    [pytest.param(*row, marks=pytest.mark.slow if row in LARGE else ()) for row in FIGURES],
)
def test_parameters_and_gmacs(kind, letter):
    model = build(kind, letter)
    cost = complexity(model, *((512, 512) if kind else (800, 1333)))
    parameters, bottom_up, gmacs, bottom_up_gmacs = FIGURES[kind, letter]
    assert cost[""].parameters == parameters
    assert cost["backbone.bottom_up"].parameters == bottom_up
    assert cost[""].macs / 1e9 == pytest.approx(gmacs, rel=0.001)
    assert cost["backbone.bottom_up"].macs / 1e9 == pytest.approx(bottom_up_gmacs, rel=0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_one_is_detectron2s_own(kind):
    model = build(kind)
    assert (type(model) is RetinaNet) == (kind == "")
    assert model.num_classes == 80 and model.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert model.anchor_generator.num_anchors == [9] * 5


@pytest.mark.parametrize("letter", VARIANT_OF)
@pytest.mark.parametrize("kind", KINDS)
def test_trains_on_odd_sizes_and_with_images_without_objects(kind, letter):
    model = build(kind, letter, "MODEL.RETINANET.NUM_CLASSES", "3", "MODEL.DEVICE", "cpu")
    batch = [
        sample(97, 131, [(10, 20, 60, 90), (5, 5, 6, 6)], [0, 2]),  # one of a single pixel
        sample(64, 111),
    ]
    with EventStorage():
        losses = model(batch)
        assert set(losses) == {"loss_cls", "loss_box_reg"}
        sum(losses.values()).backward()
        gradients = [p.grad for p in model.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)
        empty = model([sample(64, 64), sample(64, 64, seed=1)])
    assert empty["loss_box_reg"] == 0 and empty["loss_cls"] > 0


def spread_scores(model):
    """Make an untrained head find things: scores around the threshold, boxes that differ."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad(), EventStorage():
        model([sample(150, 203), sample(150, 203, seed=1)])
        for layer in (model.head.cls_score, model.head.bbox_pred):
            torch.nn.init.normal_(layer.weight, std=0.1)
    return model.eval()


@pytest.mark.parametrize("opts", [(), ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", "50")], ids=str)
def test_decoding_equals_retinanets(opts):
    model = spread_scores(build("lite_", "t", "MODEL.RETINANET.NUM_CLASSES", "4", *opts))
    inputs = [sample(150, 203), sample(150, 203, seed=1)]
    with torch.no_grad():
        ours = model(inputs)
        model.forward_inference = RetinaNet.forward_inference.__get__(model)
        theirs = model(inputs)
    for a, b in zip(ours, theirs, strict=True):
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 50
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert torch.equal(a.pred_classes, b.pred_classes)


@pytest.mark.parametrize("threshold", ["0.0", "1.0"])
def test_decoding_at_the_ends_of_the_threshold(threshold):
    model = build("lite_", "t", "MODEL.RETINANET.SCORE_THRESH_TEST", threshold).eval()
    with torch.no_grad():
        found = model([sample(64, 64)])[0]["instances"]
    assert len(found) == (100 if threshold == "0.0" else 0)


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_losses_equal_retinanets(box_loss):
    """The same model, its losses by Detectron2's method and by ours."""
    opts = ["MODEL.RETINANET.BBOX_REG_LOSS_TYPE", box_loss, "MODEL.RETINANET.NUM_CLASSES", "5"]
    model = build("lite_", "t", *opts)
    batch = [sample(97, 131, [(10, 20, 60, 90), (5, 5, 40, 45)], [0, 4]), sample(64, 111)]
    found = {}
    for owner in (RetinaNet, type(model)):
        torch.manual_seed(0)
        copied = copy.deepcopy(model)
        copied.losses = owner.losses.__get__(copied)
        with EventStorage() as storage:
            losses = copied(batch)
            scalars = storage.latest()["num_pos_anchors"][0]
        sum(losses.values()).backward()
        found[owner] = losses, [p.grad for p in copied.parameters()], scalars
    (theirs, their_grads, their_count), (ours, our_grads, our_count) = found.values()
    assert set(ours) == set(theirs) and our_count == their_count > 0
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name], loss, rtol=1e-5, atol=1e-7)
    scale = max(float(g.abs().max()) for g in their_grads)
    for a, b in zip(our_grads, their_grads, strict=True):
        assert float((a - b).abs().max()) < 1e-5 * scale


def test_nms_suppresses_within_a_class_only():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10], [40, 40, 60, 60]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 1])
    levels = [(boxes, scores, classes)]
    _, kept_scores, kept_classes = best_boxes(levels, nms_threshold=0.5, most=100)
    assert kept_scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert kept_classes.tolist() == [0, 1, 1]
    assert len(best_boxes(levels, nms_threshold=1.0, most=100)[0]) == 4


def test_levels_have_statistics_of_their_own():
    shapes = [ShapeSpec(channels=8, stride=8), ShapeSpec(channels=8, stride=16)]
    head = LiteRetinaNetHead(input_shape=shapes, num_classes=2, num_anchors=3, num_convs=1)
    features = [torch.randn(2, 8, 6, 6), 5 + 9 * torch.randn(2, 8, 3, 3)]
    logits, deltas = head(features)
    assert [tuple(x.shape) for x in logits] == [(2, 6, 6, 6), (2, 6, 3, 3)]
    assert [tuple(x.shape) for x in deltas] == [(2, 12, 6, 6), (2, 12, 3, 3)]
    means = [norm.running_mean for norm in head.cls_tower[0].norms]
    assert not torch.allclose(means[0], means[1])
    assert torch.sigmoid(head.cls_score.bias).tolist() == pytest.approx([0.01] * 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_image_is_not_padded(kind):
    model = build(kind).eval()
    images = model.preprocess_image([sample(101, 67)])
    assert tuple(images.tensor.shape) == (1, 3, 101, 67)


@pytest.mark.parametrize("kind", KINDS)
def test_deltas_that_overflow_are_named(kind):
    model = adapt(build(kind).eval())
    torch.nn.init.constant_(model.head.bbox_pred.bias, 3e37)
    with torch.no_grad(), pytest.raises(InputError, match="NaN or infinite values, or some beyond"):
        model([sample(64, 64)])


def test_half_precision_decodes_in_float32():
    """As ours do; Detectron2's own RetinaNet gives torchvision's NMS scores of another type."""
    model = build("lite_", "t", "MODEL.DEVICE", "cpu", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0")
    batch = [{"image": sample(96, 128)["image"].to(torch.uint8)}]
    with torch.no_grad():
        expected = model.eval()(batch)[0]["instances"]
        found = model.half()(batch)[0]["instances"]
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=0)
