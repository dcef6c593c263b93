"""The loss of a segmentation head is chosen by the config and handed to the head."""

import pytest
import torch
from torch import nn

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.modeling import (
    SEGMENTATION_LOSS_REGISTRY,
    SegmentationLoss,
    build_model,
    pixel_cross_entropy,
)

CONFIGS = ["seg_topformer_t", "baseline_semantic_fpn_mobilenetv2", "multitask_lite_topformer_t"]


def build(name, *opts):
    return build_model(get_config(name, ["MODEL.DEVICE", "cpu", *opts])).sem_seg_head


def test_weight_and_ignored_label_are_the_configs():
    head = build("seg_topformer_t", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "3.0")
    logits, targets = torch.randn(1, 150, 4, 4), torch.randint(0, 150, (1, 32, 32))
    targets[0, 0] = 255
    losses = head.losses(logits, targets)
    expected = 3 * pixel_cross_entropy(logits, targets, 255)
    torch.testing.assert_close(losses, {"loss_sem_seg": expected})
    assert not list(head.loss.parameters()) and head.ignore_value == 255


@pytest.mark.parametrize("name", CONFIGS)
def test_a_loss_of_ones_own_reaches_every_head(name, monkeypatch):
    registry = {**SEGMENTATION_LOSS_REGISTRY._obj_map}
    monkeypatch.setattr(SEGMENTATION_LOSS_REGISTRY, "_obj_map", registry)

    @SEGMENTATION_LOSS_REGISTRY.register()
    class MeanLogit(SegmentationLoss):
        def pixel_loss(self, logits, targets):
            return logits.mean()

    head = build(name, "MODEL.SEM_SEG_HEAD.LOSS", "MeanLogit")
    logits = torch.randn(1, 150, 4, 4)
    losses = head.losses(logits, torch.zeros(1, 32, 32, dtype=torch.int64))
    torch.testing.assert_close(losses["loss_sem_seg"], logits.mean() * head.loss.weight)


@pytest.mark.parametrize(
    ("config", "head", "key"),
    [
        ("baseline_semantic_fpn_mobilenetv2", "SemanticFPNHead", "AUXILIARY_WEIGHT"),
        ("seg_topformer_t", "SemSegFPNHead", "SMOOTHING"),  # Detectron2's, with its own loss
    ],
)
def test_a_key_that_the_head_does_not_train_with_is_named(config, head, key):
    opts = ["MODEL.SEM_SEG_HEAD.NAME", head]
    build(config, *opts)
    with pytest.raises(InputError, match=rf"SEM_SEG_LOSS has {key}, .*NAME '{head}'"):
        build(config, *opts, f"MODEL.SEM_SEG_LOSS.{key}", "0.3")


def test_a_key_that_ones_own_loss_does_not_read_is_named(monkeypatch):
    class Own(SegmentationLoss):
        def pixel_loss(self, logits, targets):
            return logits.mean()

    class Reading(Own):
        @classmethod
        def from_config(cls, cfg):
            return cls(weight=cfg.MODEL.SEM_SEG_LOSS.SMOOTHING)

    registry = {**SEGMENTATION_LOSS_REGISTRY._obj_map, "Own": Own, "Reading": Reading}
    monkeypatch.setattr(SEGMENTATION_LOSS_REGISTRY, "_obj_map", registry)
    opts = ["MODEL.SEM_SEG_LOSS.SMOOTHING", "0.25", "MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT", "0.4"]
    with pytest.raises(InputError, match=r"SEM_SEG_LOSS has SMOOTHING, .*LOSS 'Own'"):
        build("seg_topformer_t", *opts, "MODEL.SEM_SEG_HEAD.LOSS", "Own")
    head = build("seg_topformer_t", *opts, "MODEL.SEM_SEG_HEAD.LOSS", "Reading")
    assert head.loss.weight == 0.25


def test_class_weights_of_zeros_are_refused():
    keys = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2", "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS"]
    assert build("seg_topformer_t", *keys, "[0.0, 1.0]").loss.class_weights.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"CLASS_WEIGHTS are all 0"):
        build("seg_topformer_t", *keys, "[0.0, 0.0]")


def test_an_unknown_loss_is_named():
    with pytest.raises(InputError, match=r"LOSS is 'PixelCrossEntrophy' .*'PixelCrossEntropy'"):
        build("seg_topformer_t", "MODEL.SEM_SEG_HEAD.LOSS", "PixelCrossEntrophy")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda logits: logits.mean(), "a Tensor"),
        (lambda logits: {"mine": logits.mean()}, r"\['mine'\]"),
        (
            lambda logits: {"loss_sem_seg": logits.mean((1, 2, 3))},
            r"shape \(2,\) as 'loss_sem_seg'",
        ),
        (lambda logits: {"loss_sem_seg": 1.0}, "a float as 'loss_sem_seg'"),
        (lambda logits: {"loss_sem_seg": logits.argmax()}, "torch.int64"),
        (lambda logits: {"loss_sem_seg": logits.mean().detach()}, "no gradient"),
        (lambda logits: {"loss_sem_seg": logits.mean(), "loss_b": None}, "NoneType as 'loss_b'"),
    ],
)
def test_a_loss_that_gives_something_else_is_named(result, message):
    head = build("seg_topformer_t")
    head.use_loss(type("Mine", (SegmentationLoss,), {"forward": lambda self, x, y: result(x)})())
    logits = torch.zeros(2, 150, 4, 4, requires_grad=True)
    with pytest.raises(InputError, match=f"LOSS 'Mine' gives .*{message}"):
        head.losses(logits, torch.zeros(2, 32, 32, dtype=torch.int64))


class WithoutConfig(nn.Module):
    """No `from_config`."""


class WithoutIgnored(nn.Module):
    """No `ignore_value`."""

    @classmethod
    def from_config(cls, cfg):
        return cls()


class WithoutForward(WithoutIgnored):
    """No `forward`."""

    ignore_value = 255


class WithoutPixels(SegmentationLoss):
    """No `pixel_loss`."""


def a_function(logits, targets):
    """No `from_config`."""


@pytest.mark.parametrize(
    "part", [WithoutConfig, a_function, WithoutIgnored, WithoutForward, WithoutPixels]
)
def test_what_a_loss_lacks_is_named(part, monkeypatch):
    registry = {**SEGMENTATION_LOSS_REGISTRY._obj_map, part.__name__: part}
    monkeypatch.setattr(SEGMENTATION_LOSS_REGISTRY, "_obj_map", registry)
    lacking = part.__doc__.removeprefix("No ").removesuffix(".")
    with pytest.raises(InputError, match=rf"HEAD\.LOSS '{part.__name__}' has no {lacking}"):
        build("seg_topformer_t", "MODEL.SEM_SEG_HEAD.LOSS", part.__name__)


def test_a_loss_that_inherits_nothing_of_ours_is_taken(monkeypatch):
    class Own(WithoutForward):
        def forward(self, logits, targets):
            return {"loss_sem_seg": logits.mean()}

    registry = {**SEGMENTATION_LOSS_REGISTRY._obj_map, "Own": Own}
    monkeypatch.setattr(SEGMENTATION_LOSS_REGISTRY, "_obj_map", registry)
    head = build("seg_topformer_t", "MODEL.SEM_SEG_HEAD.LOSS", "Own")
    logits = torch.randn(1, 150, 4, 4)
    found = head.losses(logits, torch.zeros(1, 32, 32, dtype=torch.int64))
    torch.testing.assert_close(found, {"loss_sem_seg": logits.mean()})
