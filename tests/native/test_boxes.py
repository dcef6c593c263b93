"""boxes.c, held against the model's own decoding and NMS in PyTorch."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from tests.native.library import compiled_folder
from topformer_d2 import get_config
from topformer_d2.export.boxes import box_decoding
from topformer_d2.native import library

FOLDER = compiled_folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="there is no C compiler")


class Settings(ctypes.Structure):
    """topformer_box_settings."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("classes", "levels", "anchors")),
        *((name, ctypes.c_void_p) for name in ("heights", "widths", "strides", "cell_anchors")),
        ("offset", ctypes.c_float),
        ("box_weights", ctypes.c_float * 4),
        *((name, ctypes.c_float) for name in ("scale_clamp", "score_threshold")),
        ("topk", ctypes.c_int32),
        ("nms_threshold", ctypes.c_float),
        ("max_detections", ctypes.c_int32),
    ]


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


def find_boxes(model, logits, deltas, sizes, **changes):
    """By the library: boxes, scores and classes, or the negative status."""
    decoding = box_decoding(model)
    arrays = [
        *(np.array(sides, np.int32) for sides in zip(*sizes, strict=True)),
        np.array(decoding.strides, np.float32),
        np.array(decoding.cell_anchors, np.float32),
    ]
    names = ("scale_clamp", "score_threshold", "topk", "nms_threshold", "max_detections")
    values = {name: getattr(decoding, name) for name in names} | changes
    settings = Settings(
        model.num_classes,
        len(sizes),
        arrays[3].shape[1],
        *(array.ctypes.data for array in arrays),
        decoding.offset,
        (ctypes.c_float * 4)(*decoding.box_weights),
        **values,
    )
    native = ctypes.CDLL(str(FOLDER / library.NAMES[0]))
    native.topformer_box_plan_create.restype = ctypes.c_void_p
    plan = native.topformer_box_plan_create(ctypes.byref(settings))
    if not plan:
        return None
    most = decoding.max_detections
    boxes, scores = np.zeros((most, 4), np.float32), np.zeros(most, np.float32)
    classes = np.zeros(most, np.int32)
    pointers = ctypes.c_void_p * len(sizes)
    count = native.topformer_find_boxes(
        ctypes.c_void_p(plan),
        *(pointers(*(each.data_ptr() for each in levels)) for levels in (logits, deltas)),
        *(ctypes.c_void_p(array.ctypes.data) for array in (boxes, scores, classes)),
    )
    native.topformer_box_plan_free(ctypes.c_void_p(plan))
    return count if count < 0 else (boxes[:count], scores[:count], classes[:count])


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
    boxes, scores, classes = find_boxes(model, logits, deltas, sizes)
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
    logits, deltas, sizes = outputs_of(model, 64, 64, torch.Generator().manual_seed(0))
    (logits, deltas)[part][-1][0, 1, 0, 0] = bad
    assert find_boxes(model, logits, deltas, sizes) == -1


@pytest.mark.parametrize(
    "changes", [{"topk": 0}, {"max_detections": 0}, {"classes": 0}, {"box_weights": (0, 1, 1, 1)}]
)
def test_settings_that_do_not_fit_give_no_plan(changes):
    model = build(2)
    logits, deltas, sizes = outputs_of(model, 64, 64, torch.Generator().manual_seed(0))
    if "classes" in changes:
        model.num_classes = changes.pop("classes")
    if "box_weights" in changes:
        model.box2box_transform.weights = changes.pop("box_weights")
    assert find_boxes(model, logits, deltas, sizes, **changes) is None
