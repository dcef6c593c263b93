"""Boundary IoU and calibration, against direct computations."""

import itertools

import cv2
import numpy as np
import pytest

from topformer_d2.evaluation.boundary import BoundaryCounts, boundary_reach
from topformer_d2.evaluation.calibration import Reliability


def mask_boundary(mask, reach):
    """A mask less its erosion by `reach` steps, with nothing around the image (Cheng et al.)."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=reach)
    return mask & ~eroded[1:-1, 1:-1].astype(bool)


@pytest.mark.parametrize("num_classes", [4, 300])
def test_boundary_iou_is_that_of_each_mask(num_classes):
    g = np.random.default_rng(0)
    counts, both, union = BoundaryCounts(num_classes), np.zeros(4), np.zeros(4)
    for size in ((60, 90), (100, 40), (9, 7)):
        coarse = g.integers(0, 5, (2, 6, 5), dtype=np.uint8)  # 4 is ignored in the truth
        truth, prediction = (
            cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST) for label in coarse
        )
        prediction = np.minimum(prediction, 3)
        reach = max(1, round(0.02 * np.hypot(*size)))
        assert boundary_reach(size) == reach
        counts.add(prediction, np.where(truth == 4, 1000, truth.astype(int)))
        for k in range(4):
            seen = truth != 4
            t = mask_boundary(truth == k, reach)
            p = mask_boundary((prediction == k) & seen, reach)
            both[k] += (t & p).sum()
            union[k] += (t | p).sum()
    np.testing.assert_allclose(counts.iou()[:4], 100 * both / union)
    assert np.isnan(counts.iou()[4:]).all()


def test_boundary_counts_of_processes_add_up():
    g = np.random.default_rng(1)
    images = g.integers(0, 3, (4, 2, 20, 30))
    whole, parts = BoundaryCounts(3), [BoundaryCounts(3), BoundaryCounts(3)]
    for n, (prediction, truth) in enumerate(images):
        whole.add(prediction, truth)
        parts[n % 2].add(prediction, truth)
    parts[0].merge(parts[1])
    np.testing.assert_array_equal(parts[0].iou(), whole.iou())


def test_calibration_is_the_mean_gap_of_the_bins():
    g = np.random.default_rng(2)
    confidence = g.random(5000).astype(np.float32)
    right = g.random(5000) < confidence**2
    found = Reliability()
    for part in np.array_split(np.arange(5000), 3):
        found.add(confidence[part], right[part])
    ece, edges = 0.0, np.arange(16) / 15
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found.ece() == pytest.approx(ece, abs=1e-6)
    bins = found.to_dict()["bins"]
    assert sum(b["count"] for b in bins) == 5000
    assert all(n / 15 <= b["confidence"] <= (n + 1) / 15 for n, b in enumerate(bins))


def test_calibration_at_the_ends_and_of_nothing():
    found = Reliability()
    assert np.isnan(found.ece())
    found.add(np.array([0.0, 1.0]), np.array([False, True]))
    bins = found.to_dict()["bins"]
    assert (bins[0]["count"], bins[-1]["count"], found.ece()) == (1, 1, 0)
    assert bins[1] == {"count": 0, "confidence": None, "right": None}
