"""The losses of a teacher's outputs: values, gradients, and that the teacher stays as it is."""

import copy
import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from topformer_d2 import get_config
from topformer_d2.analysis.complexity import Network, complexity
from topformer_d2.modeling import RawOutput, build_model
from topformer_d2.modeling.distillation import BoxLesson, Distillation, PixelLesson, Teacher
from topformer_d2.modeling.distillation.losses import (
    Sizes,
    anchor_losses,
    cells_of_images,
    feature_distance,
    softened_divergence,
)
from topformer_d2.modeling.meta_arch.contract import Seen

SMALL = ["MODEL.DEVICE", "cpu", "INPUT.CROP.SIZE", "[64, 64]", "MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"]


def build(variant="tiny", seed=0, *opts):
    torch.manual_seed(seed)
    opts = [*SMALL, "MODEL.TOPFORMER.VARIANT", variant, *opts]
    return build_model(get_config("seg_topformer_t_synthetic", opts))


def teacher_of(model, student):
    return Teacher(model, of_mean=student.pixel_mean, of_std=student.pixel_std)


def batch_of(*sizes, classes=6):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(3, *size, generator=generator) * 255,
            "sem_seg": torch.randint(0, classes, size, generator=generator),
        }
        for size in sizes
    ]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_softened_divergence_is_the_formula_and_so_is_its_gradient(temperature):
    generator = torch.Generator().manual_seed(0)
    own, taught = 3 * torch.randn(2, 2, 5, 3, 4, generator=generator, dtype=torch.float64).float()
    own.requires_grad_(True)
    mask = torch.ones(2, 3, 4)
    mask[0, 2:], mask[1, :, 3:] = 0, 0
    value = softened_divergence(own, taught, mask, temperature)
    value.backward()
    count, expected, gradient = mask.sum().item(), 0.0, torch.zeros(2, 5, 3, 4)
    for n, i, j in mask.nonzero().tolist():
        p = [math.exp(x / temperature) for x in taught[n, :, i, j].tolist()]
        q = [math.exp(x / temperature) for x in own[n, :, i, j].tolist()]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        expected += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        gradient[n, :, i, j] = temperature * (torch.tensor(q) - torch.tensor(p)) / count
    assert value.item() == pytest.approx(expected / count, rel=1e-5)
    torch.testing.assert_close(own.grad, gradient, atol=1e-6, rtol=1e-4)


def test_feature_distance_is_of_directions_and_bounded_at_zero():
    own = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).reshape(1, 2, 1, 2).requires_grad_(True)
    taught = torch.tensor([[10.0, 1.0], [0.0, 0.0]]).reshape(1, 2, 1, 2)
    # (0.6, 0.8) beside (1, 0), and nothing beside (1, 0).
    distance = feature_distance(own, taught, torch.ones(1, 1, 2))
    assert distance.item() == pytest.approx(((0.16 + 0.64) + 1) / 2)
    distance.backward()
    assert own.grad.isfinite().all() and own.grad.abs().max() <= 100


def test_anchor_losses_are_the_formulas():
    logits = [torch.tensor([0.5, -1.0, 2.0, -3.0]).reshape(1, 4, 1, 1)]  # 2 anchors, 2 classes
    other = [torch.tensor([1.5, -2.0, -2.0, -4.0]).reshape(1, 4, 1, 1)]
    deltas, other_deltas = [torch.arange(8.0).reshape(1, 8, 1, 1)], [torch.ones(1, 8, 1, 1)]
    own = RawOutput(class_logits=logits, box_deltas=deltas)
    # A further column, which only the teacher's padding has.
    wide = [F.pad(x, (0, 1), value=5.0) for x in (*other, *other_deltas)]
    scores, boxes = anchor_losses(own, RawOutput(class_logits=wide[:1], box_deltas=wide[1:]))
    x, y = logits[0].flatten(), other[0].flatten().sigmoid()
    entropy = -(y * x.sigmoid().log() + (1 - y) * (1 - x.sigmoid()).log())
    expected = ((y - x.sigmoid()) ** 2 * entropy).sum()
    assert y[0] < 1 and scores.item() == pytest.approx(expected.item(), rel=1e-5)
    # The first anchor alone has a score of 0.3 or more; the weights' sum is below 1.
    assert boxes.item() == pytest.approx((1 + 0 + 1 + 2) * y[0].item(), rel=1e-5)


def test_cells_in_the_padding_do_not_count():
    mask = cells_of_images([(64, 64), (40, 33)], (64, 64), (8, 8), torch.device("cpu"))
    assert mask[0].all() and mask[1, :5, :5].all()
    assert mask[1].sum() == 25


def test_a_teachers_maps_lie_on_the_students_cells():
    """A batch of 72x72 that the teacher pads to 96x96, at strides 8 and 8, or 4 and 8."""
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    found = Sizes((72, 72), (96, 96)).at_cells(ramp, (9, 9))
    assert torch.equal(found, ramp[..., :9, :9])
    finer = torch.arange(24.0).expand(1, 1, 24, 24)
    found = Sizes((72, 72), (96, 96)).at_cells(finer, (9, 9))
    assert torch.equal(found[0, 0, 0], 2 * torch.arange(9.0) + 0.5)
    assert Sizes((72, 72), (72, 72)).at_cells(finer, (9, 9)).shape[-2:] == (9, 9)


def test_a_student_learns_and_its_teacher_stays():
    student, model = build().train(), build("small", 1)
    before = copy.deepcopy(model.state_dict())
    keys = set(student.state_dict())
    features = {"widths": {"sim3": (128, 192)}, "names": {"sim3": "sim3"}, "features_weight": 2.0}
    lesson = PixelLesson(teacher_of(model, student), logits_weight=0.5, **features)
    batch = batch_of((64, 64), (40, 48))
    plain = copy.deepcopy(student)(batch)
    student.add_module("distillation", Distillation({"sem_seg": lesson}))
    losses = student(batch)
    assert [*losses] == ["loss_sem_seg", "loss_distill_sem_seg", "loss_distill_features"]
    assert losses["loss_sem_seg"] == plain["loss_sem_seg"]
    assert losses["loss_distill_features"] > 0
    for term in ("loss_distill_sem_seg", "loss_distill_features"):
        losses[term].backward(retain_graph=True)
    assert all(p.grad is not None for p in student.backbone.parameters())
    assert all(p.grad.abs().sum() > 0 for p in lesson.adapters.parameters())
    student.train()
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    of_lesson = {f"distillation.lessons.sem_seg.adapters.sim3.{n}" for n in ("weight", "bias")}
    assert set(student.state_dict()) == keys | of_lesson
    copied = copy.deepcopy(student)
    assert copied.distillation.lessons["sem_seg"].teacher is lesson.teacher
    with torch.no_grad():  # as where BatchNorm's statistics are taken
        assert [*copied(batch)] == ["loss_sem_seg"]
    assert not [key for key in Network(student).state_dict() if "distillation" in key]
    assert complexity(student, 64, 64) == complexity(build(), 64, 64)


def test_equal_models_and_equal_batches_have_nothing_to_teach():
    """The student's batch reaches the teacher as its own: another order and normalisation too."""
    student = build().eval()
    other = build("tiny", 0, "INPUT.FORMAT", "BGR", "MODEL.PIXEL_STD", "[50.0, 60.0, 70.0]")
    scale = (other.pixel_std.flip(0) / student.pixel_std).reshape(1, 3, 1, 1)
    shift = (other.pixel_mean.flip(0) - student.pixel_mean) / student.pixel_std
    images = torch.randn(1, 3, 64, 64)
    images[..., 48:] = 0
    own, std = student.pixel_mean, student.pixel_std
    teacher = Teacher(other, of_mean=own, of_std=std, flips_channels=True)
    seen, padded = teacher(images, [(64, 48)])
    expected = ((images - shift) / scale).flip(1)
    expected[..., 48:] = 0
    torch.testing.assert_close(seen.raw.logits, other.network(expected).logits)
    assert tuple(padded) == (64, 64) and [*seen.features] == ["sim3", "sim4", "sim5"]

    same = Distillation({"sem_seg": PixelLesson(teacher_of(copy.deepcopy(student), student))})
    student.add_module("distillation", same)
    raw = student.network(images)
    (value,) = same(images, [(64, 64)], Seen(raw)).values()
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_a_joint_student_has_a_teacher_for_each_task_and_one_pass_of_a_shared_one(monkeypatch):
    torch.manual_seed(0)
    opts = ["MODEL.DEVICE", "cpu", "INPUT.CROP.SIZE", "[64, 64]"]
    cfg = get_config("multitask_lite_topformer_t_synthetic", opts)
    student = build_model(cfg).train()
    teacher = teacher_of(build_model(cfg), student)
    passes = []
    monkeypatch.setattr(
        teacher.model, "network", lambda x, run=teacher.model.network: passes.append(1) or run(x)
    )
    student.add_module(
        "distillation",
        Distillation(
            {
                "sem_seg": PixelLesson(teacher),
                "instances": BoxLesson(
                    teacher, features_weight=1.0, widths={"0": (128, 128), "4": (128, 128)}
                ),
            }
        ),
    )
    batch = batch_of((64, 64), (64, 64))
    del batch[1]["sem_seg"]
    objects = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40]])))
    objects.gt_classes = torch.tensor([1])
    batch[1]["instances"] = objects
    with EventStorage():
        losses = student(batch)
    distilled = ("sem_seg", "scores", "boxes", "levels")
    own = ("loss_sem_seg", "loss_cls", "loss_box_reg")
    assert {*losses} == {*own, *(f"loss_distill_{name}" for name in distilled)}
    assert len(passes) == 1
    sum(losses.values()).backward()
    assert all(p.grad is None for p in teacher.model.parameters())
