"""Sizes, alignment of image and labels, and the colours, against direct computations."""

import cv2
import numpy as np
import pytest

from topformer_d2 import get_config
from topformer_d2.data import build_test_augmentation, build_train_augmentation
from topformer_d2.data.augmentation import (
    ColorTransform,
    FitForTest,
    PhotometricDistortion,
    ResizeByRatio,
    fit_within,
)
from topformer_d2.errors import InputError


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((480, 640), (512, 2048), (512, 683)),
        ((640, 480), (512, 2048), (683, 512)),
        ((100, 1000), (512, 2048), (205, 2048)),  # the long side limits
        ((512, 512), (512, 2048), (512, 512)),
    ],
)
def test_fit_within(size, limits, expected):
    assert fit_within(*size, *limits) == expected


def test_test_images_are_stretched_to_multiples():
    transform = FitForTest(512, 2048, 32).get_transform(np.zeros((480, 640, 3), np.uint8))
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    out = transform.apply_image(image)
    assert out.shape == (512, 704, 3)
    expected = cv2.resize(cv2.resize(image, (683, 512)), (704, 512))
    assert np.array_equal(out, expected)


def test_test_augmentation_follows_the_config():
    image = np.zeros((360, 480, 3), np.uint8)
    ade = build_test_augmentation(get_config("seg_topformer_t"))
    assert ade.get_transform(image).apply_image(image).shape == (512, 704, 3)
    camvid = build_test_augmentation(get_config("seg_topformer_t_camvid"))
    assert camvid.get_transform(image).apply_image(image).shape == (360, 480, 3)


def test_a_test_size_of_0_keeps_the_image():
    image = np.zeros((33, 50, 3), np.uint8)
    assert FitForTest(0, 2048).get_transform(image).apply_image(image).shape == (33, 50, 3)
    assert FitForTest(0, 2048, 32).get_transform(image).apply_image(image).shape == (64, 64, 3)


def test_resize_by_ratio_covers_its_range():
    np.random.seed(0)
    resize = ResizeByRatio(512, 2048, (0.5, 2.0))
    image = np.zeros((100, 130, 3), np.uint8)
    shorts = [resize.get_transform(image).new_h for _ in range(300)]
    assert 256 <= min(shorts) < 270 and 1000 < max(shorts) <= 1024


def test_labels_stay_aligned_with_their_image():
    """The label is a function of the colour, so after any geometry it must still be."""
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 4, (12, 16)), np.ones((20, 20), int)).astype(np.uint8)
    image = np.stack([label * 60] * 3, axis=-1)
    cfg = get_config("seg_topformer_t", ["INPUT.CROP.SIZE", "[150, 150]"])
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.COLOR_AUG_SSD = (240,), False
    from detectron2.data import transforms as T

    augmentations = T.AugmentationList(build_train_augmentation(cfg))
    np.random.seed(0)
    for _ in range(20):
        sample = T.AugInput(image, sem_seg=label)
        augmentations(sample)
        assert sample.image.shape[:2] == sample.sem_seg.shape
        assert max(sample.sem_seg.shape) <= 150
        distance = np.abs(sample.image[..., 0].astype(int) - sample.sem_seg * 60)
        assert np.mean(distance > 30) < 0.1  # only where bilinear blends a border


def test_coordinates_follow():
    transform = ResizeByRatio(50, 200).get_transform(np.zeros((100, 200, 3), np.uint8))
    assert transform.apply_coords(np.array([[10.0, 20.0]])).tolist() == [[5.0, 10.0]]
    assert transform.inverse().apply_coords(np.array([[5.0, 10.0]])).tolist() == [[10.0, 20.0]]


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colour_steps_equal_a_direct_computation(image_format):
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    codes = {
        "RGB": (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB),
        "BGR": (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR),
    }[image_format]
    steps = [("linear", (1.3, -20.0)), ("saturation", 0.7), ("hue", -11)]
    out = ColorTransform(steps, image_format).apply_image(image)
    expected = (image.astype(np.float64) * 1.3 - 20).clip(0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(expected, codes[0])
    hsv[..., 1] = (hsv[..., 1].astype(np.float64) * 0.7).clip(0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(cv2.cvtColor(hsv, codes[1]), codes[0])
    hsv[..., 0] = (hsv[..., 0].astype(int) - 11) % 180
    expected = cv2.cvtColor(hsv, codes[1])
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_photometric_draws_follow_the_recipe():
    np.random.seed(0)
    augmentation = PhotometricDistortion()
    drawn = [augmentation.get_transform(np.zeros((1, 1, 3), np.uint8)).steps for _ in range(4000)]
    steps = [step for steps in drawn for step in steps]
    hues = [value for name, value in steps if name == "hue"]
    assert (min(hues), max(hues)) == (-18, 17)
    contrasts = [v[0] for name, v in steps if name == "linear" and v[0] != 1]
    offsets = [v[1] for name, v in steps if name == "linear" and v[0] == 1]
    saturations = [value for name, value in steps if name == "saturation"]
    for values, low, high in ((contrasts, 0.5, 1.5), (saturations, 0.5, 1.5), (offsets, -32, 32)):
        assert len(values) == pytest.approx(2000, rel=0.1)
        assert low <= min(values) and max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=(high - low) * 0.03)
    last = [steps[-1][0] == "linear" and steps[-1][1][0] != 1 for steps in drawn if len(steps) == 4]
    assert np.mean(last) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("key", "value"),
    [("SCALE_RANGE", "[1.0]"), ("MIN_SIZE_TRAIN", "(256, 512)"), ("RANDOM_FLIP", "both")],
)
def test_bad_values_name_the_key(key, value):
    with pytest.raises(InputError, match=rf"INPUT\.{key} is"):
        build_train_augmentation(get_config("seg_topformer_t", [f"INPUT.{key}", value]))
