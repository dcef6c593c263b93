"""Both tasks from one pass: equal to the single-task models, each task training what it should."""

import math

import pytest
import torch
from detectron2.modeling import RetinaNet, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from tests.helpers import VARIANT_OF
from topformer_d2 import get_config
from topformer_d2.analysis import complexity
from topformer_d2.config import model_tasks, single_task_opts
from topformer_d2.errors import InputError
from topformer_d2.export.network import describe
from topformer_d2.inference.model_info import ModelInfo
from topformer_d2.modeling import SegmentationLoss, TopFormerSegmentor, UncertaintyWeighting
from topformer_d2.modeling.meta_arch import retinanet, segmentor

KINDS = ["", "lite_"]
# Nothing random in training, and few classes.
PLAIN = ["MODEL.TOPFORMER.DROP_PATH_RATE", "0.0", "MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"]
PLAIN += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "7", "MODEL.RETINANET.NUM_CLASSES", "3"]
PLAIN += ["MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "32"]


def joint_config(kind="lite_", letter="t", *opts):
    return get_config(f"multitask_{kind}topformer_{letter}", [*PLAIN, *opts])


def build(kind="lite_", letter="t", *opts):
    torch.manual_seed(0)
    model = build_model(joint_config(kind, letter, *opts))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # away from what all start with
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
    return model


def single(joint, task, kind="lite_", letter="t", *opts):
    """The single-task model with the joint one's weights."""
    cfg = joint_config(kind, letter, *opts)
    cfg.merge_from_list(single_task_opts(cfg, task))
    model = build_model(cfg)
    weights = joint.state_dict()
    if task == "sem_seg":
        weights = {k.replace("backbone.bottom_up.", "backbone."): v for k, v in weights.items()}
    own = model.state_dict()
    model.load_state_dict({key: weights[key] for key in own})
    return model


def sample(height, width, tasks=("sem_seg", "instances"), seed=0, num_objects=2):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    x = {"image": image}
    if "sem_seg" in tasks:
        x["sem_seg"] = torch.randint(0, 7, (height, width), generator=generator)
    if "instances" in tasks:
        x["instances"] = Instances((height, width))
        boxes = torch.tensor([[10.0, 20, 60, 90], [30, 5, 100, 50]])[:num_objects]
        x["instances"].gt_boxes = Boxes(boxes)
        x["instances"].gt_classes = torch.tensor([0, 2])[:num_objects]
    return x


def losses(model, batch):
    with EventStorage():
        return model(batch)


def gradients(model, batch):
    """{parameter: gradient} of the sum of the losses."""
    model.zero_grad()
    model.loss_normalizer = 100
    sum(losses(model, batch).values()).backward()
    return {k: p.grad for k, p in model.named_parameters()}


def assert_same(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("letter", VARIANT_OF)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_the_single_task_models(kind, letter):
    few = ("MODEL.RETINANET.SCORE_THRESH_TEST", "0.01")
    model = build(kind, letter, *few).eval()
    for layer in (model.head.cls_score, model.head.bbox_pred):
        nn.init.normal_(layer.weight, std=0.1)
    segmenter, detector = (
        single(model, task, kind, letter, *few).eval() for task in ("sem_seg", "instances")
    )
    assert type(segmenter) is TopFormerSegmentor
    assert (type(detector) is RetinaNet) == (kind == "")
    inputs = [
        {**sample(97, 131), "height": 50, "width": 61},
        sample(64, 110, seed=1),
        {**sample(97, 131, seed=2), "height": 200, "width": 100},
    ]
    with torch.no_grad():
        together = model(inputs)
        for x, in_batch in zip(inputs, together, strict=True):
            both = model([x])[0]
            assert set(both) == {"sem_seg", "instances"}
            # A batch's convolutions may add up in another order.
            torch.testing.assert_close(in_batch["sem_seg"], both["sem_seg"], atol=1e-3, rtol=0)
            assert_same(both["sem_seg"], segmenter([x])[0]["sem_seg"])
            ours, theirs = both["instances"], detector([x])[0]["instances"]
            assert len(ours) == len(theirs) > 5 and ours.image_size == theirs.image_size
            assert_same(ours.scores, theirs.scores)
            torch.testing.assert_close(
                ours.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=1e-3, rtol=1e-5
            )
            assert torch.equal(ours.pred_classes, theirs.pred_classes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["sem_seg", "instances"])
def test_without_the_other_loss_the_gradients_are_the_single_task_models(kind, task, monkeypatch):
    # As Detectron2's own detector: BatchNorm adds up in another order where maps are channels last.
    for module in (retinanet, segmentor):
        monkeypatch.setattr(module, "training_layout", lambda device: torch.contiguous_format)
    off = {
        "sem_seg": ("MODEL.MULTITASK.INSTANCE_LOSS_WEIGHT", "0.0"),
        "instances": ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "0.0"),
    }[task]
    model = build(kind, "t", *off)
    alone = single(model, task, kind)
    batch = [sample(130, 140), sample(130, 140, seed=1)]
    if task == "sem_seg":
        alone.train_size = None  # the detector pads to the largest of the batch
    else:
        # Norms over so few values magnify the rounding of float32.
        model.double()
        alone.double()
        batch = [{**x, "image": x["image"].double()} for x in batch]
    ours, theirs = gradients(model, batch), gradients(alone, batch)
    for key, gradient in theirs.items():
        joint_key = key if task == "instances" else key.replace("backbone.", "backbone.bottom_up.")
        torch.testing.assert_close(ours[joint_key], gradient, atol=1e-5, rtol=1e-3)
    assert sum(g.abs().sum() for g in theirs.values()) > 1


@pytest.mark.parametrize("task", ["sem_seg", "instances"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_a_task_does_not_train_it(kind, task):
    model = build(kind)
    found = gradients(model, [sample(130, 140, [task]), sample(130, 140, [task], seed=1)])
    heads = {"sem_seg": "sem_seg_head.", "instances": "head."}
    for other, prefix in heads.items():
        total = sum(g.abs().sum() for k, g in found.items() if k.startswith(prefix))
        assert (total > 0) == (other == task)
    assert found["backbone.bottom_up.pyramid.stem.weight"].abs().sum() > 0
    assert all(g is not None for g in found.values())  # what DistributedDataParallel waits for


@pytest.mark.parametrize("kind", KINDS)
def test_both_tasks_reach_the_backbone_in_one_call(kind):
    model = build(kind)
    batch = [sample(130, 140), sample(130, 140, seed=1)]
    calls = []
    model.backbone.bottom_up.register_forward_hook(lambda *_: calls.append(1))
    found = losses(model, batch)
    assert len(calls) == 1
    stem = model.backbone.bottom_up.pyramid.stem.weight
    for name, loss in found.items():
        gradient = torch.autograd.grad(loss, stem, retain_graph=True)[0]
        assert gradient.abs().sum() > 0, name
    model.eval()
    with torch.no_grad():
        model(batch)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_counts_for_the_tasks_it_has_labels_for(kind):
    """And as much as it would beside any other images: what has no labels is ignored."""
    model = build(kind)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # so that no image depends on its neighbours

    def normalised(*batch):
        model.loss_normalizer = 100
        return losses(model, list(batch))

    both, pixels, boxes = (
        sample(130, 140),
        sample(130, 140, ["sem_seg"], seed=1),
        sample(130, 140, ["instances"], seed=2),
    )
    mixed = normalised(pixels, both, boxes)
    assert_same(3 * mixed["loss_sem_seg"], 2 * normalised(pixels, both)["loss_sem_seg"])
    for name in ("loss_cls", "loss_box_reg"):
        assert_same(mixed[name], normalised(both, boxes)[name])
    # As if processes with a part of the batch each took the mean of their gradients.
    parts = [normalised(x)["loss_sem_seg"] for x in (pixels, both, boxes)]
    assert_same(mixed["loss_sem_seg"], sum(parts) / 3)
    only = normalised(pixels)
    assert only["loss_cls"] == only["loss_box_reg"] == 0 and only["loss_sem_seg"] > 0
    no_objects = normalised(sample(130, 140, ["instances"], num_objects=0))
    assert no_objects["loss_cls"] > 0 and no_objects["loss_sem_seg"] == 0


def test_images_of_differing_sizes_are_padded_and_ignored_there():
    model = build("")
    small, large = sample(64, 140), sample(130, 100, seed=1)
    found = losses(model, [small, large])
    padded = {**small, "sem_seg": torch.full((130, 140), 255)}
    padded["sem_seg"][:64] = small["sem_seg"]
    assert_same(losses(model, [padded, large])["loss_sem_seg"], found["loss_sem_seg"])


def test_an_image_without_labels_is_named():
    with pytest.raises(InputError, match=r"x\.png has no labels"):
        build()([{**sample(130, 140, []), "file_name": "x.png"}])


def test_uncertainty_weighting():
    model = build("lite_", "t", "MODEL.MULTITASK.UNCERTAINTY_WEIGHTING", "True")
    plain = build()
    batch = [sample(130, 140), sample(130, 140, seed=1)]
    s = torch.tensor([0.5, -0.25, 1.0])  # sem_seg, cls, box_reg
    with torch.no_grad():
        model.loss_weighting.log_variance.copy_(s)
    expected = losses(plain, batch)
    with EventStorage() as storage:
        found = model(batch)
        weights = {k: v for k, (v, _) in storage.latest().items() if k.startswith("weight_")}
    assert weights == pytest.approx(
        {
            "weight_sem_seg": math.exp(-0.5),
            "weight_cls": math.exp(0.25),
            "weight_box_reg": math.exp(-1) / 2,
        }
    )
    for name, loss in expected.items():
        assert_same(found[name], loss * weights[f"weight_{name.removeprefix('loss_')}"])
    assert found["loss_uncertainty"].item() == pytest.approx((0.5 - 0.25 + 1) / 2)
    # d/ds of exp(-s) L + s / 2, and half of the first for a regression.
    gradient = torch.autograd.grad(sum(found.values()), model.loss_weighting.log_variance)[0]
    assert_same(gradient, 0.5 - torch.stack([found[name] for name in expected]).detach())


def test_the_uncertainty_of_a_missing_task_is_left_alone():
    weighting = UncertaintyWeighting(["loss_a", "loss_b"], ["loss_b"])
    given = {"loss_a": torch.tensor(2.0), "loss_b": torch.tensor(0.0), "loss_aux": torch.ones(())}
    with EventStorage():
        found = weighting(given, ["loss_a"])
    assert found["loss_aux"] == 1  # not one of its names
    sum(found.values()).backward()
    assert weighting.log_variance.grad.tolist() == pytest.approx([0.5 - 2, 0])


# Parameters, and GMACs at 512x512, with COCO's 80 and COCO-Stuff's 171 classes.
FIGURES = {
    ("", "t"): (10_626_399, 39.278),
    ("lite_", "t"): (1_616_991, 1.571),
}


@pytest.mark.parametrize(("kind", "letter"), FIGURES)
def test_parameters_and_gmacs(kind, letter):
    cfg = get_config(f"multitask_{kind}topformer_{letter}")
    assert model_tasks(cfg) == ("sem_seg", "instances")
    cost = complexity(build_model(cfg), 512, 512)[""]
    assert (cost.parameters, round(cost.macs / 1e9, 3)) == FIGURES[kind, letter]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.MULTITASK.DETECTOR", "FCOS", r"DETECTOR is 'FCOS'; known: \['RetinaNet'"),
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone", r"'build_resnet_backbone' has no pyramid"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['p3']", r"names \['p3'\].*gives \['sim3'"),
    ],
)
def test_wrong_configs_are_named(key, value, message):
    opts = [key, value]
    if "resnet" in value:
        opts += ["MODEL.RETINANET.IN_FEATURES", "['res4']", "MODEL.RESNETS.DEPTH", "18"]
        opts += ["MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.ANCHOR_GENERATOR.SIZES", "[[32]]"]
    with pytest.raises(InputError, match=message):
        build("", "t", *opts)


@pytest.mark.parametrize(
    ("term", "weighting"),
    [("loss_cls", "False"), ("loss_box_reg", "True"), ("loss_uncertainty", "True")],
)
def test_a_term_of_ones_own_with_a_name_of_the_detectors_is_named(term, weighting):
    class Mine(SegmentationLoss):
        def forward(self, logits, targets):
            return {**super().forward(logits, targets), "loss_mine": logits.mean(), **self.more}

        def pixel_loss(self, logits, targets):
            return logits.mean()

    model = build("lite_", "t", "MODEL.MULTITASK.UNCERTAINTY_WEIGHTING", weighting)
    model.sem_seg_head.use_loss(Mine())
    batch = [sample(64, 96), sample(64, 96, seed=1)]
    model.sem_seg_head.loss.more = {}
    assert "loss_mine" in losses(model, batch)
    model.sem_seg_head.loss.more = {term: torch.ones(())}
    with pytest.raises(InputError, match=rf"SEM_SEG_HEAD\.LOSS 'Mine' gives '{term}'"):
        losses(model, batch)


class OfDetectron2(nn.Module):
    """A head with Detectron2's interface alone: losses in training, logits at the image's size."""

    ignore_value = 255

    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(128, 7, 1)

    def forward(self, features, targets=None):
        logits = nn.functional.interpolate(self.classifier(features["sim3"]), scale_factor=8)
        if targets is None:
            return logits, {}
        return None, {"loss_sem_seg": nn.functional.cross_entropy(logits, targets)}


def test_a_head_of_detectron2s_interface_is_trained_and_refused_by_export():
    model = build()
    model.sem_seg_head = OfDetectron2()
    found = losses(model, [sample(64, 96), sample(64, 96, seed=1)])
    assert set(found) == {"loss_sem_seg", "loss_cls", "loss_box_reg"}
    found["loss_sem_seg"].backward()
    assert model.sem_seg_head.classifier.weight.grad.any()
    with pytest.raises(InputError, match=r"SEM_SEG_HEAD\.NAME 'OfDetectron2' cannot be exported"):
        describe(model.eval(), ModelInfo.from_config(joint_config()))
    with torch.no_grad():
        (output,) = model.eval()([{"image": sample(64, 100)["image"]}])
    assert output["sem_seg"].shape == (7, 64, 100)
