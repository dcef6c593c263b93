"""One mask a class."""

import os

import numpy as np
import pytest

from tests.data.formats import rasters
from topformer_d2.errors import InputError


def save_mask(path, inside, value=255):
    rasters.save(np.uint8(value) * np.asarray(inside), path)


@pytest.mark.parametrize(
    ("build", "names", "expected"),
    [
        (rasters.folders_of_classes, ["cat", "dog"], {0: 424, 1: 80, 2: 264}),
        (rasters.suffixes_of_classes, ["cat", "traffic_light"], {0: 424, 1: 80, 2: 264}),
        (rasters.suffixes_beside_images, ["cat", "dog"], {0: 424, 1: 80, 2: 264}),
    ],
)
def test_classes_are_sorted_after_the_background(tmp_path, build, names, expected):
    labels, images = build(tmp_path)
    labelling = rasters.read("binary_masks", labels, images)
    assert labelling.names == ["background", *names]
    assert labelling.values == dict(enumerate(labelling.names))
    assert [each.image for each in labelling.images] == ["im0", "im1", "im2"]
    assert all(len(each.files) == 2 for each in labelling.images)
    assert rasters.counts("binary_masks", labelling, 2) == expected


def test_a_later_class_covers_an_earlier_one_and_absent_masks_are_empty(tmp_path):
    images = rasters.photos(tmp_path / "images")
    everywhere = np.ones((24, 32), bool)
    save_mask(tmp_path / "masks/a/im0.png", everywhere)
    save_mask(tmp_path / "masks/b/im0.png", rasters.label() == 1, 3)
    save_mask(tmp_path / "masks/background/im0.png", everywhere)
    save_mask(tmp_path / "masks/background/im1.png", everywhere)
    labelling = rasters.read("binary_masks", tmp_path / "masks", images)
    assert labelling.names == ["background", "a", "b"]
    assert rasters.counts("binary_masks", labelling, 0) == {1: 688, 2: 80}
    assert rasters.counts("binary_masks", labelling, 1) == {0: 768}
    assert len(labelling.images) == 2


def test_folders_of_classes_with_the_folders_of_images_within(tmp_path):
    images = rasters.photos(tmp_path / "images", ["city/x", "city/y"])
    for name in ("road/city/x", "sky/city/x", "sky/city/y_mask"):
        save_mask(tmp_path / f"masks/{name}.png", rasters.label() == 1)
    assert rasters.detected(tmp_path / "masks", images) == ["binary_masks"]
    labelling = rasters.read("binary_masks", tmp_path / "masks", images)
    assert [(each.image, len(each.files)) for each in labelling.images] == [
        ("city/x", 2),
        ("city/y", 1),
    ]


@pytest.mark.parametrize(
    ("masks", "images", "expected"),
    [
        # Numbers, and words for any mask, end names of images and of objects.
        (["a_1", "a_2"], ["a"], "index_masks"),
        (["a_mask", "a_mask_1"], ["a"], "index_masks"),
        (["a_1", "a_2"], ["a", "a_1", "a_2"], "index_masks"),
        (["a_road", "b_road"], ["a_road", "b_road"], "index_masks"),
        (["a_L", "a_R"], ["a"], "binary_masks"),
        (["a_road", "b_road"], ["a", "b"], "binary_masks"),
        (["a-road", "a_1_road"], ["a", "a_1"], "binary_masks"),
        # Folders of splits and of any masks.
        (["train/a", "val/b"], ["train/a", "val/b"], "index_masks"),
        (["train/a", "val/b"], ["a", "b"], "index_masks"),
        (["masks/a", "masks/b"], ["a", "b"], "index_masks"),
        (["road/a", "road/b"], ["a", "b"], "binary_masks"),
        (["train/a", "bus/b"], ["a", "b"], "binary_masks"),
        (["1/a", "2/a"], ["a"], "binary_masks"),
    ],
)
def test_classes_are_told_from_other_endings_of_names(tmp_path, masks, images, expected):
    for name in masks:
        save_mask(tmp_path / f"labels/{name}.png", rasters.label() == 1)
    photos = rasters.photos(tmp_path / "images", images)
    assert rasters.detected(tmp_path / "labels", photos) == [expected]


def test_masks_of_several_values_are_not_detected(tmp_path):
    labels, images = rasters.folders_of_classes(tmp_path)
    rasters.save(rasters.label(), labels / "dog/im2.png")
    assert rasters.detected(labels, images) == ["index_masks"]
    labelling = rasters.read("binary_masks", labels, images)
    assert rasters.counts("binary_masks", labelling, 2) == {0: 424, 2: 344}


def test_masks_of_two_sizes_are_refused(tmp_path):
    labels, images = rasters.folders_of_classes(tmp_path)
    save_mask(labels / "dog/im0.png", np.ones((24, 31), bool))
    labelling = rasters.read("binary_masks", labels, images)
    with pytest.raises(InputError, match=r"dog/im0\.png has 31x24 .*cat/im0\.png.* 32x24"):
        rasters.counts("binary_masks", labelling)


def test_problems_of_masks(tmp_path):
    labels, images = rasters.folders_of_classes(tmp_path)
    save_mask(labels / "dog/im1.tif", rasters.label() == 1)
    # Its name ends in another class, and its folder is one.
    rasters.photos(images, ["b_cat"])
    save_mask(labels / "dog/b_cat.png", rasters.label() == 1)
    rasters.photos(labels / "cat", ["im2", "im3"])
    labelling = rasters.read("binary_masks", labels, images)
    found = [(each.kind, os.path.relpath(each.file, labels)) for each in labelling.problems]
    assert found == [
        ("image listed twice", "dog/im1.tif"),
        ("JPEG label", "cat/im3.jpg"),
        ("unreadable file", "dog/b_cat.png"),
    ]
    assert [each.image for each in labelling.images] == ["im0", "im1", "im2"]


def test_other_folders_are_refused(tmp_path):
    labels, images = rasters.SAMPLES["grey"][1](tmp_path)
    with pytest.raises(InputError, match=r"labels .*im0\.png is neither"):
        rasters.read("binary_masks", labels, images)
    for i in range(256):
        save_mask(tmp_path / f"many/c{i}/im0.png", rasters.label() == 1)
    assert "binary_masks" not in rasters.detected(tmp_path / "many", images)
    with pytest.raises(InputError, match="256 classes"):
        rasters.read("binary_masks", tmp_path / "many", images)
