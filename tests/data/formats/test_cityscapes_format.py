"""Cityscapes' folders without a script."""

import pytest

from tests.data.formats import rasters
from topformer_d2.errors import InputError


@pytest.mark.parametrize(
    ("kinds", "expected", "road"),
    [
        (["labelIds"], {7: 80, 26: 264, 255: 424}, 7),
        (["labelIds", "labelTrainIds"], {0: 80, 13: 264, 255: 424}, 0),
        (["labelTrainIds"], {0: 80, 13: 264, 255: 424}, 0),
    ],
)
def test_official_and_training_ids(tmp_path, kinds, expected, road):
    labels, images = rasters.cityscapes_folders(tmp_path, kinds)
    labelling = rasters.read("cityscapes", labels, images)
    assert len(labelling.names) == len(labelling.values) == 19
    assert labelling.values[road] == "road" and labelling.colors["road"] == (128, 64, 128)
    assert rasters.counts("cityscapes", labelling) == expected
    assert [each.image for each in labelling.images] == [
        "aachen/aachen_000000_000019_leftImg8bit",
        "ulm/ulm_000000_000019_leftImg8bit",
    ]


@pytest.mark.parametrize(
    ("labels", "images"),
    [("gtFine", "leftImg8bit"), (".", "leftImg8bit"), ("gtFine/train", "leftImg8bit")],
)
def test_folders_above_those_of_a_split(tmp_path, labels, images):
    rasters.cityscapes_folders(tmp_path)
    labels, images = tmp_path / labels, tmp_path / images
    assert rasters.detected(labels, images) == ["cityscapes"]
    found = {each.image for each in rasters.read("cityscapes", labels, images).images}
    assert found == {f"train/{c}/{c}_000000_000019_leftImg8bit" for c in ("aachen", "ulm")}


def test_a_frame_without_the_file_that_others_have_is_a_problem(tmp_path):
    labels, images = rasters.cityscapes_folders(tmp_path, ["labelIds", "labelTrainIds"])
    (labels / "ulm/ulm_000000_000019_gtFine_labelIds.png").unlink()
    assert len(rasters.read("cityscapes", labels, images).images) == 2
    (labels / "aachen/aachen_000000_000019_gtFine_labelTrainIds.png").unlink()
    labelling = rasters.read("cityscapes", labels, images)
    assert [each.image[:6] for each in labelling.images] == ["aachen"]
    assert [each.kind for each in labelling.problems] == ["missing file"]
    assert "ulm_000000_000019_gtFine_labelIds.png" in labelling.problems[0].message


def test_unknown_ids_stay_as_they_are(tmp_path):
    labels, images = rasters.cityscapes_folders(tmp_path)
    rasters.save(rasters.label() + 34, labels / "aachen/aachen_000000_000019_gtFine_labelIds.png")
    labelling = rasters.read("cityscapes", labels, images)
    assert rasters.counts("cityscapes", labelling) == {34: 424, 35: 80, 36: 264}


@pytest.mark.parametrize("table", [" cat\n dog\n", "250 50 83 cat\n36 179 83 dog\n"])
def test_own_classes_of_a_table(tmp_path, table):
    labels, images = rasters.cityscapes_folders(tmp_path)
    (tmp_path / "label_colors.txt").write_text(table)
    (labels / "labelmap.txt").write_text("of something else: broken")
    labelling = rasters.read("cityscapes", labels, images)
    assert labelling.values == {0: "background", 1: "cat", 2: "dog"}
    assert rasters.counts("cityscapes", labelling) == {0: 424, 7: 80, 26: 264}


def test_other_folders_are_refused(tmp_path):
    labels, images = rasters.SAMPLES["grey"][1](tmp_path)
    with pytest.raises(InputError, match="labels holds no Cityscapes"):
        rasters.read("cityscapes", labels, images)
