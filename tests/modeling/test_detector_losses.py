"""The losses of detectors that the config chooses: each reaches each detector, with its value."""

import pytest
import torch
from detectron2.modeling import build_model as build_detectron2_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F
from torchvision import ops

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.modeling import build_model

KEYS = "MODEL.RETINANET."
CONFIGS = [
    "det_retinanet_topformer_t",
    "det_retinanet_lite_topformer_t",
    "multitask_lite_topformer_t",
]
IOU_LOSSES = {
    "giou": ops.generalized_box_iou_loss,
    "diou": ops.distance_box_iou_loss,
    "ciou": ops.complete_box_iou_loss,
}
BOXES = torch.tensor([[4.0, 6, 40, 50], [20, 10, 60, 30]])


def build(name, *opts):
    torch.manual_seed(0)
    small = ["MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "32"]
    return build_model(get_config(name, [*small, *opts])).train()


def losses(model):
    instances = Instances((64, 64), gt_boxes=Boxes(BOXES), gt_classes=torch.tensor([1, 2]))
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
    sample = {"image": image, "instances": instances}
    torch.manual_seed(1)  # drop path
    with EventStorage():
        return model([sample, sample])


@pytest.mark.parametrize("name", CONFIGS)
def test_each_key_changes_its_own_loss_alone(name):
    plain = losses(build(name))
    for key, value, changed in [
        ("FOCAL_LOSS_ALPHA", "0.5", "loss_cls"),
        ("FOCAL_LOSS_GAMMA", "1.0", "loss_cls"),
        ("QUALITY_TARGETS", "True", "loss_cls"),
        *(("BBOX_REG_LOSS_TYPE", kind, "loss_box_reg") for kind in ("giou", "diou", "ciou")),
    ]:
        found = losses(build(name, KEYS + key, value))
        assert found.keys() == plain.keys()
        different = [each for each in found if not torch.equal(found[each], plain[each])]
        assert different == [changed]
        found[changed].backward()


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_iou_losses_are_torchvisions_of_the_decoded_boxes(kind):
    model = build(CONFIGS[1], KEYS + "BBOX_REG_LOSS_TYPE", kind, KEYS + "NUM_CLASSES", "3")
    anchors = torch.tensor([[0.0, 0, 30, 40], [10, 10, 50, 50], [18, 12, 55, 28]])
    truth = torch.cat([BOXES, BOXES[1:]])
    deltas = 0.3 * torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    deltas.requires_grad_()
    labels = torch.tensor([[0, 3, 2]])  # of a class, of none, of a class
    logits = torch.zeros(1, 3, 3, requires_grad=True)
    with EventStorage():
        found = model.losses([Boxes(anchors)], [logits], [*labels], [deltas], [*truth[None]])
    of_class = [0, 2]
    decoded = model.box2box_transform.apply_deltas(deltas[0, of_class], anchors[of_class])
    expected = IOU_LOSSES[kind](decoded, truth[of_class], reduction="sum") / (0.9 * 100 + 0.1 * 2)
    torch.testing.assert_close(found["loss_box_reg"], expected)
    gradients = [torch.autograd.grad(each, deltas)[0] for each in (found["loss_box_reg"], expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0][0, of_class].any(1).all() and not gradients[0][0, 1].any()


def test_targets_are_the_ious_of_decoded_boxes():
    model = build(CONFIGS[1], KEYS + "QUALITY_TARGETS", "True", KEYS + "NUM_CLASSES", "3")
    anchors = [Boxes(torch.tensor([[0.0, 0, 30, 40], [10, 10, 50, 50]])), Boxes(BOXES)]
    generator = torch.Generator().manual_seed(0)
    deltas = [0.3 * torch.randn(1, 2, 4, generator=generator) for _ in range(2)]
    logits = [torch.randn(1, 2, 3, generator=generator) for _ in range(2)]
    labels = torch.tensor([[0, 3, -1, 2]])  # of a class, of none, ignored, of a class
    truth = torch.cat([BOXES, BOXES])[None]
    with EventStorage():
        found = model.losses(anchors, logits, [*labels], deltas, [*truth])
    decoded = model.box2box_transform.apply_deltas(
        torch.cat(deltas, 1)[0], Boxes.cat(anchors).tensor
    )
    ious = ops.box_iou(decoded, truth[0]).diagonal()
    targets = torch.zeros(4, 3)
    targets[0, 0], targets[3, 2] = ious[0], ious[3]
    used, x = [0, 1, 3], torch.cat(logits, 1)[0]
    expected = sum(
        abs(y - s) ** 2 * F.binary_cross_entropy(s, y)
        for s, y in zip(x[used].sigmoid().ravel(), targets[used].ravel(), strict=True)
    )
    normalizer = 0.9 * 100 + 0.1 * 2  # a running mean
    torch.testing.assert_close(found["loss_cls"], expected / normalizer)
    assert 0 < ious[0] < 1 and 0 < ious[3] < 1


@pytest.mark.parametrize("name", [*CONFIGS[1:], "multitask_topformer_t"])
def test_detectron2s_builder_gives_quality_targets_as_well(name):
    for value in (True, False):
        opts = ["MODEL.DEVICE", "cpu", KEYS + "QUALITY_TARGETS", str(value)]
        assert build_detectron2_model(get_config(name, opts)).quality_targets is value


def test_a_segmenter_has_no_quality_targets():
    with pytest.raises(InputError, match=r"QUALITY_TARGETS is True, but .*'TopFormerSegmentor'"):
        build("seg_topformer_t", KEYS + "QUALITY_TARGETS", "True")
