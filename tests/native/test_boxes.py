"""boxes.c, held against the model's own decoding and NMS in PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from tests.native.library import compiled_folder
from topformer_d2 import get_config
from topformer_d2.export.boxes import box_decoding
from topformer_d2.native import library
from topformer_d2.native.boxes import native_boxes

FOLDER = compiled_folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="there is no C compiler")


def build(num_classes, **decoding):
    cfg = get_config(
        "det_retinanet_lite_topformer_t",
        ["MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CLASSES", num_classes],
    )
    model = build_model(cfg).eval()
    for name, value in decoding.items():
        assert hasattr(model, name)
        setattr(model, name, value)
    return model


def outputs_of(model, height, width, generator, spread=2.0):
    """Levels of logits and of deltas, and the sizes of the levels."""
    anchors = model.anchor_generator.num_anchors[0]
    sizes = [(-(-height // s), -(-width // s)) for s in model.anchor_generator.strides]
    logits, deltas = (
        [factor * torch.randn(1, anchors * channels, *size, generator=generator) for size in sizes]
        for channels, factor in ((model.num_classes, spread), (4, 0.5))
    )
    return [each - 4 for each in logits], deltas, sizes


def find_boxes(model, logits, deltas, **changes):
    """By the library: boxes, scores and classes; None where a setting does not fit."""
    logits, deltas = ([each[0].numpy() for each in levels] for levels in (logits, deltas))
    settings = {**vars(box_decoding(model)), "num_classes": model.num_classes, **changes}
    return native_boxes(logits, deltas, **settings)


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    monkeypatch.setattr(library, "FOLDER", FOLDER)


@pytest.mark.parametrize("size", [(96, 128), (70, 131), (8, 8)])
@pytest.mark.parametrize(
    ("num_classes", "decoding"),
    [
        (3, {}),
        (80, {}),
        (3, {"test_topk_candidates": 20}),
        (3, {"test_score_thresh": 0.0, "max_detections_per_image": 1000}),
        (3, {"test_score_thresh": 1.0}),
        (1, {"test_nms_thresh": 0.2, "max_detections_per_image": 5}),
        (2, {"test_nms_thresh": 1.0}),
    ],
)
def test_equals_the_models_own_decoding(num_classes, decoding, size):
    model = build(num_classes, **decoding)
    logits, deltas, sizes = outputs_of(model, *size, torch.Generator().manual_seed(num_classes))
    features = [torch.zeros(1, 1, *each) for each in sizes]
    images = SimpleNamespace(image_sizes=[size])
    (expected,) = model.forward_inference(images, features, (logits, deltas))
    boxes, scores, classes = find_boxes(model, logits, deltas)
    assert len(scores) == len(expected)
    if decoding.get("test_score_thresh") != 1.0:
        assert len(scores) > 0
    np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
    assert classes.tolist() == expected.pred_classes.tolist()
    np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_are_told(part, bad):
    model = build(2)
    logits, deltas, _ = outputs_of(model, 64, 64, torch.Generator().manual_seed(0))
    (logits, deltas)[part][-1][0, 1, 0, 0] = bad
    with pytest.raises(FloatingPointError):
        find_boxes(model, logits, deltas)


@pytest.mark.parametrize(
    "changes", [{"topk": 0}, {"max_detections": 0}, {"box_weights": (0, 1, 1, 1)}]
)
def test_settings_that_do_not_fit_give_no_plan(changes):
    model = build(2)
    logits, deltas, _ = outputs_of(model, 64, 64, torch.Generator().manual_seed(0))
    assert find_boxes(model, logits, deltas, **changes) is None


def test_shapes_that_do_not_belong_together_are_not_read():
    model = build(2)
    logits, deltas, _ = outputs_of(model, 64, 64, torch.Generator().manual_seed(0))
    assert len(find_boxes(model, logits, deltas)[1]) > 0
    for wrong in (
        (logits[:-1], deltas[:-1]),
        ([each[:, :-1] for each in logits], deltas),
        (logits, [each[:, 1:] for each in deltas]),
        (logits, [each[..., 1:] for each in deltas]),
    ):
        with pytest.raises(ValueError, match=r"deltas|logits"):
            find_boxes(model, *wrong)
