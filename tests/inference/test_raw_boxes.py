"""Boxes made of raw outputs; test_exported.py has those of files."""

import numpy as np
import pytest

from topformer_d2.errors import InputError
from topformer_d2.inference.boxes import boxes_of_outputs, find_boxes
from topformer_d2.inference.export_info import BoxDecoding

pytestmark = pytest.mark.usefixtures("native_form")

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
