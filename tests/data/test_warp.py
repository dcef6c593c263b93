"""Geometry of warps and crops: where pixels, labels and boxes go."""

import numpy as np
import pytest
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform

from topformer_d2.data.augmentations import BalancedCrop
from topformer_d2.data.augmentations.warp import Warp, WarpTransform


def quarter_turn(side, **settings):
    """About the middle of a square image, clockwise on the screen."""
    return WarpTransform(side, side, np.array([[0, -1, side], [1, 0, 0], [0, 0, 1.0]]), **settings)


def test_a_crop_of_a_warp_is_that_part_of_it():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    np.random.seed(3)
    warp = Warp(rotation=30, shear=10, perspective=0.1, min_visible=0.2).get_transform(image)
    crop = CropTransform(20, 10, 50, 40)
    both = WarpTransform(90, 120, warp.matrix, min_visible=0.2, crop=crop)
    whole = warp.apply_image(image)[10:50, 20:70]
    assert np.abs(both.apply_image(image).astype(int) - whole).max() <= 8  # of 1/32 pixel's steps
    label = image[..., 0] // 64
    assert (
        both.apply_segmentation(label) == warp.apply_segmentation(label)[10:50, 20:70]
    ).mean() > 0.99
    boxes = np.array([[55, 25, 65, 35], [0, 0, 9, 9], [40, 30, 110, 80]])
    found, frame = both.apply_box(boxes), warp.apply_box(boxes) - [20, 10, 20, 10]
    assert found[0] == pytest.approx(frame[0]) and not found[1].any()
    assert (found[2] >= [0, 0, 0, 0]).all() and (found[2] <= [50, 40, 50, 40]).all()
    assert both.apply_coords(np.array([[3.0, 4]])) == pytest.approx(
        warp.apply_coords(np.array([[3.0, 4]])) - [20, 10]
    )


def test_a_quarter_turn_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (31, 31, 3), dtype=np.uint8)
    turn = quarter_turn(31)
    assert np.array_equal(turn.apply_segmentation(image[..., 0]), np.rot90(image[..., 0], -1))
    assert np.array_equal(turn.apply_image(image), np.rot90(image, -1))
    boxes = np.array([[2, 4, 7, 20], [-9, 0, 10, 5], [3, 3, 3, 9]])
    assert turn.apply_box(boxes).tolist() == [[11, 2, 27, 7], [26, 0, 31, 10], [0, 0, 0, 0]]
    assert turn.apply_box(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(("min_visible", "kept"), [(0.0, 4), (0.25, 3), (0.51, 2), (0.76, 1)])
def test_boxes_that_leave_the_image_are_cut_or_dropped(min_visible, kept):
    """40 pixels to the right: 100, 75, 50, 20 and 0 % of five boxes stay."""
    shift = np.array([[1, 0, 40], [0, 1, 0], [0, 0, 1.0]])
    warp = WarpTransform(50, 100, shift, (1, 2, 3), 255, min_visible)
    boxes = [[x, 10, x + 20, 30] for x in (40, 45, 50, 56, 70)]
    expected = [[80, 10, 100, 30], [85, 10, 100, 30], [90, 10, 100, 30], [96, 10, 100, 30]]
    found = warp.apply_box(np.array(boxes)).tolist()
    assert found == [*expected[:kept], *[[0, 0, 0, 0]] * (5 - kept)]
    image = warp.apply_image(np.full((50, 100, 3), 9, np.uint8))
    assert (image[:, :40] == (1, 2, 3)).all() and (image[:, 40:] == 9).all()
    assert (warp.apply_segmentation(np.zeros((50, 100), np.uint8))[:, :40] == 255).all()


def test_a_turned_box_is_cut_at_the_border_by_its_shape():
    """A diamond of which the left half is outside reaches from the top to the bottom corner."""
    half = np.sqrt(0.5)
    turn = np.array([[half, -half, 0], [half, half, 0], [0, 0, 1.0]])
    box = np.array([[0, 0, 20, 20.0]])
    assert WarpTransform(90, 90, turn).apply_box(box)[0] == pytest.approx(
        [0, 0, 20 * half, 40 * half]
    )
    assert not WarpTransform(90, 90, turn, min_visible=0.51).apply_box(box).any()


def test_rare_classes_come_more_often_in_balanced_crops():
    """A class of 0.1 % of the pixels, and a box of 4 % of the width."""
    label = np.zeros((200, 300), np.uint8)
    label[:, 150:] = 1
    label[120:126, 40:50] = 2
    label[:2] = 255
    image = np.zeros((200, 300, 3), np.uint8)
    box = np.array([[200, 20, 212, 50.0]])
    other = T.RandomCrop("absolute", (60, 80))
    for prob, low, high in ((0.0, 0.0, 0.15), (1.0, 0.25, 0.45), (0.5, 0.12, 0.3)):
        crop, rare, whole, places = BalancedCrop(other, "absolute", (60, 80), prob), 0, 0, []
        np.random.seed(1)
        for _ in range(300):
            sample = T.AugInput(image, sem_seg=label, boxes=box)
            sample.classes = np.array([4])
            crop(sample)
            assert sample.image.shape == (60, 80, 3)
            rare += (sample.sem_seg == 2).any()
            x0, y0, x1, y1 = sample.boxes[0]
            is_whole = x0 >= 0 and y0 >= 0 and x1 <= 80 and y1 <= 60
            whole += is_whole
            places += [x0] if is_whole else []
        assert low < rare / 300 < high and low < whole / 300 < high
    assert min(places) < 10 and max(places) > 58  # anywhere in the crop
    sample = T.AugInput(image)
    assert BalancedCrop(other, "absolute", (60, 80), 1.0)(sample).w == 80  # nothing to choose


def test_a_box_larger_than_the_crop_fills_it():
    crop = BalancedCrop(T.RandomCrop("absolute", (20, 30)), "absolute", (20, 30), 1.0)
    for _ in range(30):
        t = crop.around((100, 100), np.array([30.5, 40, 80, 95.2]))
        assert 30 <= t.x0 <= 50 and 40 <= t.y0 <= 76
