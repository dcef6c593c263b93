"""Files that give raw outputs: the Predictor makes the boxes, as the decoded file has them."""

from functools import partial

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from tests.helpers import exported
from tests.inference.test_whole_way import picture
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor
from topformer_d2.inference.boxes import boxes_of_outputs, find_boxes
from topformer_d2.inference.export_info import BoxDecoding

for library in ("onnx", "onnxruntime"):
    pytest.importorskip(library, reason="the export extra is not installed")

pytestmark = pytest.mark.usefixtures("native_form")
KEYS = [
    *("TEST.DETECTIONS_PER_IMAGE", "20", "INPUT.MIN_SIZE_TEST", "96"),
    *("INPUT.MAX_SIZE_TEST", "200", "MODEL.DEVICE", "cpu"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A config and weights of both tasks, which finds boxes."""
    cfg = get_config("multitask_lite_topformer_t_synthetic", KEYS)
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.head.cls_score.weight, std=0.1)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    weights = str(tmp_path_factory.mktemp("model") / "model.pth")
    save_state_dict(model.state_dict(), weights)
    return cfg, weights


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"size": (96, 131)},
        pytest.param({"size": (96, 131), "with_preprocessing": True}, marks=pytest.mark.slow),
        pytest.param({"with_preprocessing": True}, marks=pytest.mark.slow),
    ],
)
def test_boxes_equal_those_of_the_decoded_file_and_of_the_model(model, tmp_path, flags):
    export = partial(exported, *model, **flags)
    raw = Predictor(export(tmp_path / "raw.onnx", raw_boxes=True), num_threads=1)
    decoded = Predictor(export(tmp_path / "decoded.onnx"), num_threads=1)
    for size in ((96, 131), (131, 200)):
        image = picture(*size)
        found, expected = raw(image), [decoded(image)]
        if not flags or (size == (96, 131) and "with_preprocessing" not in flags):
            expected.append(Predictor(*model)(image))
        assert len(found.boxes) > 5
        for scene in expected:
            assert found.classes.tolist() == scene.classes.tolist()
            np.testing.assert_allclose(found.scores, scene.scores, rtol=0, atol=1e-5)
            np.testing.assert_allclose(found.boxes, scene.boxes, rtol=0, atol=1e-2)


def test_tiles_of_a_raw_file(model, tmp_path):
    path = exported(*model, tmp_path / "raw.onnx", raw_boxes=True)
    image = picture(150, 300)
    found = Predictor(path, tile_size=128)(image)
    expected = Predictor(*model, tile_size=128)(image)
    assert len(found.boxes) > 5 and found.classes.tolist() == expected.classes.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=1e-2)


DECODING = BoxDecoding(
    strides=(8, 16),
    cell_anchors=(((-4.0, -4.0, 4.0, 4.0),), ((-8.0, -8.0, 8.0, 8.0),)),
    offset=0.5,
    box_weights=(1.0, 1.0, 1.0, 1.0),
    scale_clamp=4.0,
    score_threshold=0.5,
    topk=100,
    nms_threshold=0.5,
    max_detections=10,
)


def raw_outputs():
    """Logits of two classes and deltas of an input of 16x16: nothing is above the threshold."""
    sides = (2, 1)
    logits = [np.full((2, side, side), -9.0, np.float32) for side in sides]
    return logits, [np.zeros((4, side, side), np.float32) for side in sides]


def test_boxes_by_hand():
    logits, deltas = raw_outputs()
    logits[0][1, 0, 1] = 2.0  # class 1 at the anchor from (8, 0) to (16, 8)
    logits[1][0, 0, 0] = 1.0  # class 0 at the anchor from (0, 0) to (16, 16)
    deltas[0][0, 0, 1] = 0.5  # half of its width to the right
    boxes, scores, classes = find_boxes(logits, deltas, DECODING, 2)
    assert boxes.tolist() == [[12, 0, 20, 8], [0, 0, 16, 16]] and classes.tolist() == [1, 0]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([-2.0, -1.0])), rtol=1e-6)
    assert classes.dtype == np.int64 and boxes.dtype == scores.dtype == np.float32
    outputs = {f"class_logits_p{i}": a[None] for i, a in enumerate(logits)}
    outputs |= {f"box_deltas_p{i}": a[None] for i, a in enumerate(deltas)}
    boxes, *_ = boxes_of_outputs(outputs, 0, (16, 16), DECODING, 2)
    assert boxes.tolist() == [[12, 0, 16, 8], [0, 0, 16, 16]]  # clipped


def test_no_boxes_and_values_that_are_not_finite():
    logits, deltas = raw_outputs()
    boxes, scores, classes = find_boxes(logits, deltas, DECODING, 2)
    assert boxes.shape == (0, 4) and len(scores) == len(classes) == 0
    for part in (logits, deltas):
        part[1][0, 0, 0] = np.nan
        with pytest.raises(InputError, match="NaN or infinite"):
            find_boxes(logits, deltas, DECODING, 2)
        part[1][0, 0, 0] = -1
