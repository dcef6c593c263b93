"""Kinds of a detector's errors: cases made by hand, and the package tidecv."""

import numpy as np
import pytest

from topformer_d2.evaluation import tide
from topformer_d2.evaluation.box_mistakes import best_threshold, box_confusion, reliability_of
from topformer_d2.evaluation.tide import (
    BOTH,
    CLASS,
    DUPLICATE,
    ERRORS,
    IGNORED,
    MISSED,
    NOTHING,
    PLACE,
    RIGHT,
    Detections,
    match_image,
)

OBJECT = [0, 0, 10, 10]  # of class 0, the only one


def match(found, truth, crowd=()):
    """match_image of lists [box, class, score] and [box, class]; `crowd` are indices."""
    boxes, classes, scores = (list(c) for c in zip(*found, strict=True)) if found else ([], [], [])
    truths, kinds = (list(c) for c in zip(*truth, strict=True)) if truth else ([], [])
    return match_image(
        np.array(boxes, float).reshape(-1, 4),
        np.array(classes, int),
        np.array(scores, float),
        np.array(truths, float).reshape(-1, 4),
        np.array(kinds, int),
        np.isin(np.arange(len(truths)), crowd),
    )


@pytest.mark.parametrize(
    "box, category, kind",
    [
        ([0, 0, 10, 10], 0, RIGHT),
        ([0, 0, 10, 5], 0, RIGHT),  # an IoU of 0.5
        ([0, 0, 10, 4], 0, PLACE),
        ([0, 0, 10, 1], 0, PLACE),  # 0.1
        ([0, 0, 10, 0.9], 0, NOTHING),
        ([0, 0, 10, 6], 1, CLASS),
        ([0, 0, 10, 4], 1, BOTH),
        ([0, 0, 10, 1], 1, NOTHING),
        ([50, 50, 5, 5], 0, NOTHING),
    ],
)
def test_the_kind_of_one_detection(box, category, kind):
    found = match([(box, category, 0.5)], [(OBJECT, 0)])
    assert found.kinds.tolist() == [kind]
    assert found.found.tolist() == [kind == RIGHT]
    assert found.missed.tolist() == [kind in (BOTH, NOTHING)]
    assert found.objects.tolist() == [0 if kind in (RIGHT, CLASS, PLACE) else -1]


def test_the_best_takes_the_object_and_others_are_duplicates():
    found = match([(OBJECT, 0, 0.3), ([0, 0, 10, 9], 0, 0.8)], [(OBJECT, 0)])
    assert found.kinds.tolist() == [DUPLICATE, RIGHT]


def test_a_crowd_is_neither_found_nor_missed():
    crowd = [0, 0, 40, 40]
    found = match([([5, 5, 4, 4], 0, 0.9), ([5, 5, 4, 4], 1, 0.9)], [(crowd, 0)], crowd=[0])
    assert found.kinds.tolist() == [IGNORED, NOTHING]
    assert (found.missed.tolist(), found.found.tolist()) == ([False], [False])


def test_images_without_objects_or_detections():
    assert match([(OBJECT, 0, 0.5)], []).kinds.tolist() == [NOTHING]
    assert match([], [(OBJECT, 0)]).missed.tolist() == [True]
    assert match([], []).kinds.size == 0


def scenes(num_images=30, num_classes=3, seed=0):
    """Random objects and detections that are near them, with every kind of error."""
    g = np.random.default_rng(seed)
    for _ in range(num_images):
        truth = [
            ([*g.uniform(0, 80, 2), *g.uniform(8, 40, 2)], int(g.integers(num_classes)))
            for _ in range(g.integers(0, 6))
        ]
        found = []
        for box, category in truth[: g.integers(0, 7)] * 3:
            moved = np.array(box) + g.normal(0, g.choice([1, 6]), 4)
            moved[2:] = moved[2:].clip(2)
            found.append((moved, int(g.choice([category, g.integers(num_classes)])), g.random()))
        for _ in range(g.integers(0, 3)):
            box = [*g.uniform(0, 80, 2), *g.uniform(5, 30, 2)]
            found.append((box, int(g.integers(num_classes)), g.random()))
        yield found, truth


def gather(images, num_classes=3):
    parts, total = [], 0
    for found, truth in images:
        m = match(found, truth)
        parts.append(
            (
                [f[1] for f in found],
                [f[2] for f in found],
                m.kinds,
                np.where(m.objects >= 0, m.objects + total, -1),
                [t[1] for t in truth],
                np.zeros(len(truth), bool),
                m.missed,
            )
        )
        total += len(truth)
    kinds = (int, float, int, int, int, bool, bool)
    columns = [
        np.concatenate([np.asarray(each, kind) for each in column])
        for kind, column in zip(kinds, zip(*parts, strict=True), strict=True)
    ]
    return Detections(*columns, num_classes)


@pytest.mark.parametrize("seed", range(3))
def test_kinds_and_gains_are_those_of_tidecv(monkeypatch, seed):
    tidecv = pytest.importorskip("tidecv")
    # COCO's recalls, which are ours, differ in the last bit from these, and so may a precision.
    monkeypatch.setattr(tide, "RECALLS", np.arange(101) / 100)
    images = list(scenes(seed=seed))
    truth, found = tidecv.Data("truth"), tidecv.Data("found")
    for n, (detections, objects) in enumerate(images):
        truth.add_image(n, str(n))
        for box, category in objects:
            truth.add_ground_truth(n, category, box)
        for box, category, score in detections:
            found.add_detection(n, category, score, list(box))
    run = tidecv.TIDE().evaluate(truth, found, mode=tidecv.TIDE.BOX)
    names = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), ERRORS, strict=True))
    counts = {names[kind.short_name]: n for kind, n in run.count_errors().items()}
    gains = {names[kind.short_name]: gain for kind, gain in run.fix_main_errors().items()}
    ours = gather(images)
    assert min(counts.values()) > 0
    assert ours.errors() == counts
    ap = ours.ap50().mean()
    assert ap == pytest.approx(run.ap, abs=1e-9)
    for kind, gain in gains.items():
        assert max(0, ours.ap50(kind).mean() - ap) == pytest.approx(gain, abs=1e-9), kind


def test_each_fix_removes_its_errors():
    # One object found, one found as another class, one missed; a false alarm between them.
    images = [
        (
            [(OBJECT, 0, 0.9), ([50, 50, 9, 9], 0, 0.8), ([20, 0, 9, 9], 1, 0.7)],
            [(OBJECT, 0), ([20, 0, 9, 9], 0), ([80, 80, 9, 9], 1)],
        ),
    ]
    found = gather(images, num_classes=2)
    assert found.errors() == {CLASS: 1, PLACE: 0, BOTH: 0, DUPLICATE: 0, NOTHING: 1, MISSED: 1}
    # Class 0: 1 of 2 objects, so precision 1 at the recalls 0 to 0.5; class 1: nothing.
    np.testing.assert_allclose(found.ap50(), [100 * 51 / 101, 0])
    # The second object comes third: precision 2/3 above a recall of 0.5.
    np.testing.assert_allclose(found.ap50(CLASS), [100 * (51 + 50 * 2 / 3) / 101, 0])
    np.testing.assert_allclose(found.ap50(MISSED), [100 * 51 / 101, 0])
    np.testing.assert_allclose(found.ap50(NOTHING), [100 * 51 / 101, 0])


def test_summaries_from_a_score_on():
    images = [
        (
            [(OBJECT, 0, 0.9), ([50, 50, 9, 9], 0, 0.4), ([20, 0, 9, 9], 1, 0.7)],
            [(OBJECT, 0), ([20, 0, 9, 9], 0), ([80, 80, 9, 9], 1)],
        ),
    ]
    found = gather(images, num_classes=2)
    assert best_threshold(found) == 0.9
    assert box_confusion(found, 0.5).tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert box_confusion(found, 0.8).tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert box_confusion(found, 0.0).tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    bins = reliability_of(found).to_dict()["bins"]
    assert [(b["count"], b["right"]) for b in bins if b["count"]] == [(1, 0), (1, 0), (1, 1)]
