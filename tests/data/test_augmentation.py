"""Sizes, alignment of image and labels, and the colours, against direct computations."""

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from fvcore.transforms.transform import HFlipTransform

from topformer_d2 import get_config
from topformer_d2.data import build_test_augmentation, build_train_augmentation
from topformer_d2.data.augmentation import (
    CategoryCrop,
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


def ks_distance(values, cdf) -> float:
    """Kolmogorov and Smirnov's: the largest gap between the values' distribution and `cdf`.

    Of 2,000 values of the right distribution, one in a thousand sets has a gap above 0.044. For
    whole numbers `cdf` is taken at the value itself, where theirs has stepped.
    """
    values = np.sort(values)
    expected = cdf(values)
    above = np.searchsorted(values, values, side="right") / len(values) - expected
    if np.issubdtype(values.dtype, np.integer):
        return np.abs(above).max()
    below = expected - np.arange(len(values)) / len(values)
    return max(above.max(), below.max())


def uniform(low, high):
    return lambda x: (x - low) / (high - low)


def test_scales_and_flips_follow_the_recipe():
    np.random.seed(0)
    resize, _, flip, _ = build_train_augmentation(get_config("seg_topformer_t"))
    image = np.zeros((300, 500, 3), np.uint8)
    scales = [resize.get_transform(image).new_h / 512 for _ in range(2000)]
    assert ks_distance(scales, uniform(0.5, 2.0)) < 0.044
    assert ks_distance(scales, uniform(0.6, 2.0)) > 0.044  # the test tells them apart
    # So wide that the long side limits, which the ratio multiplies as well.
    wide = np.zeros((10, 100, 3), np.uint8)
    scales = [resize.get_transform(wide).new_w / 2048 for _ in range(2000)]
    assert ks_distance(scales, uniform(0.5, 2.0)) < 0.044
    flipped = [isinstance(flip.get_transform(image), HFlipTransform) for _ in range(2000)]
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.037)  # 3.3 standard deviations


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
def test_labels_stay_aligned_with_their_image(flip):
    """The whole recipe on a picture whose label is the largest of its three channels.

    The hue turns by 36 degrees at most and the other steps keep the channels' order.
    """
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 3, (12, 16)), np.ones((20, 20), int)).astype(np.uint8)
    image = np.where(np.arange(3) == label[..., None], 150, 60).astype(np.uint8)
    opts = ["INPUT.CROP.SIZE", "[150, 150]", "INPUT.MIN_SIZE_TRAIN", "(240,)"]
    cfg = get_config("seg_topformer_t", [*opts, "INPUT.RANDOM_FLIP", flip])
    augmentations = T.AugmentationList(build_train_augmentation(cfg))
    np.random.seed(0)
    sizes = set()
    for _ in range(40):
        sample = T.AugInput(image, sem_seg=label)
        augmentations(sample)
        assert sample.image.shape[:2] == sample.sem_seg.shape
        sizes.add(sample.sem_seg.shape)
        # Where no other class is within 2 pixels; bilinear interpolation blends the borders.
        near = np.ones((5, 5), np.uint8)
        inside = cv2.dilate(sample.sem_seg, near) == cv2.erode(sample.sem_seg, near)
        inside[[0, 1, -2, -1]] = inside[:, [0, 1, -2, -1]] = False
        assert inside.mean() > 0.3
        assert np.array_equal(sample.image.argmax(-1)[inside], sample.sem_seg[inside])
    assert (150, 150) in sizes and min(sizes)[0] < 150


def crop_label(kind):
    """(120, 160) uint8: blocks of 4 classes; mostly one class; one class; mostly ignored."""
    rng = np.random.default_rng(3)
    label = np.kron(rng.integers(0, 4, (6, 8)), np.ones((20, 20), int)).astype(np.uint8)
    if kind == "one":
        label[:] = 2
    elif kind == "mostly one":
        label[:, 40:] = 1
    elif kind == "ignored":
        label[:, 60:] = 255
    return label


@pytest.mark.parametrize("kind", ["blocks", "one", "mostly one", "ignored"])
def test_crops_are_those_of_detectron2(kind):
    label = crop_label(kind)
    arguments = "absolute", (50, 60), 0.75, 255
    ours, theirs = CategoryCrop(*arguments), T.RandomCrop_CategoryAreaConstraint(*arguments)
    for seed in range(50):
        drawn = []
        for crop in (ours, theirs):
            np.random.seed(seed)
            t = crop.get_transform(np.zeros((120, 160, 3), np.uint8), label)
            drawn.append((t.x0, t.y0, t.w, t.h, np.random.randint(1 << 30)))
        assert drawn[0] == drawn[1]


def test_no_class_covers_more_than_three_quarters_of_a_crop():
    cfg = get_config("seg_topformer_t", ["INPUT.CROP.SIZE", "[50, 60]"])
    crop = build_train_augmentation(cfg)[1]
    label = crop_label("blocks")
    label[:, 80:] = 1
    np.random.seed(0)
    shares, unruly = [], []
    for _ in range(300):
        transform = crop.get_transform(np.zeros((120, 160, 3), np.uint8), label)
        counts = np.bincount(transform.apply_segmentation(label).ravel())
        shares.append(counts.max() / counts.sum())
        y, x = np.random.randint(71), np.random.randint(101)
        unruly.append(np.bincount(label[y : y + 50, x : x + 60].ravel()).max() / 3000)
    assert max(shares) < 0.75
    assert np.mean(np.array(unruly) >= 0.75) > 0.2  # without the rule


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


def test_colours_follow_the_recipe():
    np.random.seed(0)
    augmentation = PhotometricDistortion()
    drawn = [augmentation.get_transform(np.zeros((1, 1, 3), np.uint8)).steps for _ in range(4000)]
    steps = [step for steps in drawn for step in steps]
    contrasts = [v[0] for name, v in steps if name == "linear" and v[1] == 0]
    offsets = [v[1] for name, v in steps if name == "linear" and v[1] != 0]
    saturations = [value for name, value in steps if name == "saturation"]
    hues = [value for name, value in steps if name == "hue"]
    for values, cdf in (
        (contrasts, uniform(0.5, 1.5)),
        (offsets, uniform(-32, 32)),
        (saturations, uniform(0.5, 1.5)),
        (hues, lambda x: (x + 19) / 36),  # each of -18 .. 17 alike
    ):
        assert len(values) == pytest.approx(2000, abs=105)  # 3.3 standard deviations
        assert ks_distance(values, cdf) < 0.044
    assert (min(hues), max(hues)) == (-18, 17)
    # Brightness comes first; with all four, the contrast is second or last.
    orders = [tuple(name for name, _ in s) for s in drawn if len(s) == 4]
    rest = ("saturation", "hue")
    assert set(orders) == {("linear", "linear", *rest), ("linear", *rest, "linear")}
    assert all(s[0][1][0] == 1.0 for s in drawn if len(s) == 4)
    assert np.mean([order[-1] == "linear" for order in orders]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("SCALE_RANGE", "[1.0]"), ("MIN_SIZE_TRAIN", "(256, 512)"), ("RANDOM_FLIP", "both")],
)
def test_bad_values_name_the_key(key, value):
    with pytest.raises(InputError, match=rf"INPUT\.{key} is"):
        build_train_augmentation(get_config("seg_topformer_t", [f"INPUT.{key}", value]))
