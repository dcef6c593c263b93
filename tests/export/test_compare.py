"""What counts as a difference of an exported network's answer."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.inference.test_export_info import DECODING
from topformer_d2.export.compare_boxes import Candidates, Detections, Limits, compare_boxes
from topformer_d2.export.differences import compare_labels, compare_values, tolerance


def test_values_say_where():
    expected = torch.zeros(2, 3, 4)
    given = expected.numpy().copy()
    given[1, 0, 3] = -0.25
    found = compare_values("logits", expected, given)
    assert found.value == 0.25 and found.where == "index (1, 0, 3)"
    given[0, 2, 1] = np.nan
    assert compare_values("logits", expected, given).value == math.inf
    assert compare_values("logits", expected, given[:1]).value == math.inf


@pytest.mark.parametrize(
    "values, limit",
    [
        ([-3.0, 5.0], 1e-3),
        ([0.0, 2e-4], 2e-7),
        ([-1000.0, 58.0], 1058e-5),
        ([-4.6001, -4.6], 4.6e-5),
        ([0.0, 0.0], 0.0),
    ],
)
def test_the_limit_goes_with_the_values(values, limit):
    expected = torch.tensor(values)
    assert tolerance(expected)[0] == pytest.approx(limit, rel=0.1, abs=1e-20)
    assert compare_values("logits", expected, expected.numpy()).share == 0.0
    found = compare_values("logits", expected, expected.numpy() + np.float32(2 * limit + 1e-12))
    assert found.share > 1 and f"of values up to {max(map(abs, values)):.3g}" in str(found)


def test_the_limit_goes_with_pytorchs_own_rounding():
    expected = torch.tensor([-3.0, 5.0])
    assert tolerance(expected, rounding=1e-5)[0] == 1e-3
    found = compare_values("logits", expected, expected.numpy() + np.float32(0.006), rounding=1e-3)
    assert found.limit == 8e-3 and found.share < 1


def test_labels_may_differ_where_logits_are_equal():
    logits = torch.tensor([[[[2.0, 1.0]], [[2.0, 0.5]]]])
    assert compare_labels("labels", logits, np.uint8([[[1, 0]]])).value == 0.0
    found = compare_labels("labels", logits, np.uint8([[[0, 1]]]))
    assert (
        found.value == 0.5
        and found.limit == 2 * tolerance(logits)[0]
        and "(0, 0, 1)" in found.where
        and "50.0000%" in found.where
    )
    assert compare_labels("labels", logits, np.uint8([[[0, 7]]])).value == math.inf


# The first two overlap by 0.8; the third, of another class, and the fourth by nothing.
BOXES = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 8], [20, 20, 60, 100]]
SCORES = [0.5, 0.4997, 0.7, 0.3]
CLASSES = [0, 0, 1, 0]


def detections(*indices, boxes=BOXES, scores=SCORES, classes=CLASSES) -> Detections:
    rows = torch.tensor(indices, dtype=torch.int64)
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return Detections(boxes, torch.tensor(scores), torch.tensor(classes))[rows]


def candidates(
    *kept, boxes=BOXES, scores=SCORES, classes=CLASSES, anchor=0.0, lowest=DECODING.score_threshold
) -> Candidates:
    found = detections(*range(len(boxes)), boxes=boxes, scores=scores, classes=classes)
    units = anchor + (found.boxes[:, 2:] - found.boxes[:, :2]).repeat(1, 2)
    lowest = torch.full((len(found),), lowest)
    return Candidates(found, units, lowest, torch.tensor(kept, dtype=torch.int64), (100, 200))


def differences(expected, given, decoding=DECODING, limits=None) -> tuple[float, float]:
    found = compare_boxes(expected, given, decoding, limits or Limits())
    boxes, scores = sorted(found, key=lambda difference: difference.output)
    return boxes.value, scores.value


def test_boxes_are_matched_in_any_order_and_measured_by_their_size():
    moved = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 8], [20, 20, 60, 99.2]]
    assert differences(candidates(2, 0, 3), detections(3, 2, 0)) == (0.0, 0.0)
    found = differences(candidates(2, 0, 3), detections(2, 0, 3, boxes=moved))
    assert found == (pytest.approx(0.01, abs=1e-6), 0.0)
    found = differences(candidates(2, 0, 3, anchor=80.0), detections(2, 0, 3, boxes=moved))
    assert found == (pytest.approx(0.005, abs=1e-6), 0.0)
    found = differences(candidates(2, 3), detections(2, 3, scores=[0, 0, 0.7, 0.32]))
    assert found == (0.0, pytest.approx(0.02, abs=1e-6))
    wrong_class = detections(2, 3, classes=[0, 0, 0, 0])
    assert differences(candidates(2, 3), wrong_class)[0] == pytest.approx(0.7)


def test_boxes_are_compared_as_they_are_seen():
    """One far outside, and one below a pixel of a large anchor: float32 gives those no better."""
    boxes = [[-5000.0, 20, -4999.9, 20.1], [30, 30, 30.4, 30.3]]
    near = [[0, 20, 0, 20.1], [30.03, 30, 30.43, 30.3]]
    keys = {"scores": [0.9, 0.8], "classes": [0, 0]}
    expected = candidates(0, 1, boxes=boxes, anchor=800.0, **keys)
    boxes_off, _ = differences(expected, detections(0, 1, boxes=near, **keys))
    assert 0 < boxes_off < 1e-4
    far = [near[0], [31.5, 30, 31.9, 30.3]]
    assert differences(expected, detections(0, 1, boxes=far, **keys))[0] > 1e-3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_no_box(value):
    boxes = [*BOXES[:3], [value, 20, 60, 100]]
    assert differences(candidates(3), detections(3, boxes=boxes))[0] > 0.1
    scores = [*SCORES[:3], value]
    assert max(differences(candidates(3), detections(3, scores=scores))) == math.inf


@pytest.mark.parametrize("expected, given", [((0, 3), (0,)), ((0,), (0, 3)), ((0, 3), ())])
def test_a_box_without_counterpart_counts_with_its_score(expected, given):
    value, _ = differences(candidates(*expected), detections(*given))
    assert value == pytest.approx(max(SCORES[i] for i in {*expected} ^ {*given}))


def test_where_both_find_nothing_nothing_is_compared():
    assert list(compare_boxes(candidates(), detections(), DECODING, Limits())) == []


def test_boxes_where_pytorch_finds_none_count_with_their_scores():
    value, _ = differences(candidates(), detections(0, 3))
    assert value == pytest.approx(max(SCORES[0], SCORES[3]))


def test_nms_may_choose_either_of_two_equal_scores():
    assert differences(candidates(0, 3), detections(1, 3)) == (0.0, 0.0)
    # But not a box that is no candidate, nor both.
    wrong = [[0, 0, 10, 9.4], *BOXES[1:]]
    assert differences(candidates(0, 3), detections(0, 3, boxes=wrong))[0] > 0.05
    assert differences(candidates(0, 3), detections(0, 1, 3))[0] == pytest.approx(0.4997)


def test_a_choice_of_the_nms_goes_on():
    """The first two are equal; what the second drops, the first does not, and so on."""
    boxes = [[0, 0, 10, 10], [0, 1, 10, 11], [0, 5, 10, 15], [0, 9.5, 10, 19.5]]
    keys = {"boxes": boxes, "scores": [0.8, 0.8, 0.6, 0.5], "classes": [0] * 4}
    decoding = replace(DECODING, nms_threshold=0.34)
    assert differences(candidates(0, 2, **keys), detections(1, 3, **keys), decoding)[0] == 0.0
    keys["scores"] = [0.8, 0.7, 0.6, 0.5]
    assert differences(candidates(0, 2, **keys), detections(1, 3, **keys), decoding)[0] > 0.4


def test_what_is_at_a_limit_may_be_missing():
    scores = [0.5, 0.4, 0.7, 0.0504]
    assert differences(candidates(0, 3, scores=scores), detections(0))[0] == 0.0
    # At an IoU of 0.8 and the NMS's of 0.8 either is right.
    at_nms = replace(DECODING, nms_threshold=0.8)
    assert differences(candidates(0, 1), detections(0), at_nms)[0] == 0.0
    full = replace(DECODING, max_detections=1)
    assert differences(candidates(2, 3), detections(2), full)[0] == 0.0
    # Of more candidates of one score than a level takes, either may be taken.
    keys = {"scores": [1.0, 0.9, 1.0, 1.0]}
    assert differences(candidates(0, lowest=1.0, **keys), detections(2, 3, **keys))[0] == 0.0
    assert differences(candidates(0, lowest=0.9, **keys), detections(2, 3, **keys))[0] == 1.0


def test_outputs_without_a_value_are_equal():
    found = compare_values("logits", torch.zeros(0, 4), np.zeros((0, 4), np.float32), 0.0)
    assert found.value == 0
