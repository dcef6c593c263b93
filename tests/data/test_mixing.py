"""Copy-paste and mosaic: which objects and labels a mixed sample has."""

import cv2
import numpy as np
import pytest

from topformer_d2 import get_config
from topformer_d2.data.augmentations import Mixing, Picture
from topformer_d2.data.augmentations.build import build_mixing

CONFIG = "multitask_lite_topformer_t_synthetic"


def picture(value, boxes, classes, label):
    image = np.full((40, 60, 3), value, np.uint8)
    return Picture(image, label, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes))


@pytest.mark.parametrize(("min_visible", "left"), [(0.0, [0, 1, 2]), (0.3, [0, 1]), (0.6, [0])])
def test_covered_boxes_are_cut_or_dropped(min_visible, left):
    """The object pasted is a box of 20x20 without a label of its own, at (10, 10)."""
    label = np.zeros((40, 60), np.uint8)
    onto = picture(1, [[40, 5, 50, 30], [20, 10, 40, 30], [12, 10, 32, 30]], [0, 1, 2], label)
    donor = picture(2, [[10, 10, 30, 30]], [3], label + 1)
    made = Mixing(min_visible=min_visible).copy_paste(onto, donor)
    cut = [[40, 5, 50, 30], [30, 10, 40, 30], [30, 10, 32, 30]]
    assert made.boxes.tolist() == [*(cut[i] for i in left), [10, 10, 30, 30]]
    assert made.classes.tolist() == [*left, 3]
    inside = np.zeros((40, 60), bool)
    inside[10:30, 10:30] = True
    assert np.array_equal(made.image[..., 0], np.where(inside, 2, 1))
    assert np.array_equal(made.sem_seg, inside) and not onto.sem_seg.any()


def test_an_object_with_a_label_is_pasted_by_its_pixels():
    label = np.zeros((40, 60), np.uint8)
    disc = cv2.circle(label.copy(), (20, 20), 10, 5, -1)
    onto = picture(1, [[8, 8, 16, 14]], [1], label)
    donor = picture(2, [[10, 10, 31, 31], [40, 5, 50, 15]], [0, 1], disc)
    pasted = 0
    for seed in range(9):
        np.random.seed(seed)
        # Of class 1 nothing can be pasted: the label has no pixel of 7.
        made = Mixing(object_labels=[5, 7]).copy_paste(onto, donor)
        if made is onto:
            continue
        pasted += 1
        assert made.boxes.tolist() == [[8, 8, 16, 14], [10, 10, 31, 31]]
        assert made.classes.tolist() == [1, 0]
        assert np.array_equal(made.sem_seg, disc)
        assert np.array_equal(made.image[..., 2] == 2, disc > 0)
    assert 0 < pasted < 9


def test_boxes_have_labels_by_their_class_names(caplog):
    cfg = get_config(CONFIG, ["INPUT.COPY_PASTE.PROB", "1.0"])
    assert build_mixing(cfg).object_labels == (1, 2, 3, 4, 5) and not caplog.records
    # Of a dataset that a program registers the config need not have the names.
    cfg.DATASETS.THING_CLASSES, cfg.DATASETS.STUFF_CLASSES = [], []
    assert build_mixing(cfg).object_labels == (1, 2, 3, 4, 5) and not caplog.records
    cfg.DATASETS.THING_CLASSES = ["ring", "ball"]
    with caplog.at_level("WARNING", "topformer_d2"):
        assert build_mixing(cfg).object_labels == (5, -1)
    assert "['ball']" in caplog.text
    assert (
        build_mixing(get_config("seg_topformer_t", ["INPUT.MOSAIC.PROB", "1.0"])).mosaic_prob == 1
    )
