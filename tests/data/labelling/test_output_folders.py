"""OUTPUT_DIR among the images and labels: what a run writes is not taken for some of them."""

import json

import cv2
import numpy as np
import pytest

from topformer_d2.data import folders
from topformer_d2.data.labelling import Entry, LabelledFolder, dataset
from topformer_d2.errors import InputError
from topformer_d2.files import stamp


def write_image(path, value=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    is_label = path.stem.endswith("_mask")
    cv2.imwrite(str(path), np.full((20, 30) if is_label else (20, 30, 3), value, np.uint8))


def write_labelme(path):
    points = [[2, 3], [12, 3], [12, 13]]
    shapes = [{"label": "cat", "shape_type": "polygon", "points": points}]
    path.write_text(json.dumps({"shapes": shapes, "imagePath": f"{path.stem}.png"}))


@pytest.fixture(params=["labelme", "masks"])
def photos(tmp_path, request):
    """Three images with labels beside them, and the keys of their entry."""
    root = tmp_path / "photos"
    for i in range(3):
        write_image(root / f"{i}.png")
        if request.param == "labelme":
            write_labelme(root / f"{i}.json")
        else:
            write_image(root / f"{i}_mask.png", i % 2)
    keys = {} if request.param == "labelme" else {"CLASSES": ["road", "car"]}
    return root, {"IMAGES": str(root), "LABELS": str(root), **keys}


@pytest.mark.parametrize("before", [(), ("log.txt",)], ids=["new", "begun"])
def test_what_runs_write_into_images_is_left_out(photos, before, monkeypatch):
    root, keys = photos
    output = root / "output"
    for name in before:
        output.mkdir(exist_ok=True)
        (output / name).write_text("begun")
    made = []
    make = dataset.make_records
    monkeypatch.setattr(dataset, "make_records", lambda own: made.append(own) or make(own))
    cache = output / "dataset_cache" / "own"
    for run in range(3):
        own = LabelledFolder("own", Entry.parse("own", keys), str(cache))
        files = [record["file_name"] for record in own.records()]
        assert files == [str(root / f"{i}.png") for i in range(3)]
        (output / "log.txt").write_text("x" * run)
        write_image(output / "inference" / "0.png")
        write_image(output / "inference" / "0_mask.png", 0)
        write_labelme(output / "inference" / "1.json")
    assert len(made) == 1
    # Another run's output is left out, too; a new image is not.
    second = LabelledFolder("own", Entry.parse("own", keys), str(root / "o2/dataset_cache/own"))
    assert len(second.records()) == 3
    write_image(root / "new" / "3.png")
    own.records()
    assert len(made) == 3


def test_output_that_is_the_folder_of_the_images_is_refused(photos):
    root, keys = photos
    with pytest.raises(InputError, match=r"OUTPUT_DIR.*IMAGES.*photos/output"):
        folders.register_folder("own", keys, str(root / "dataset_cache" / "own"))


def test_a_stamp_leaves_folders_out(tmp_path):
    write_image(tmp_path / "a" / "0.png")
    write_image(tmp_path / "b" / "0.png")

    def stamps():
        return [stamp(tmp_path), stamp(tmp_path, lambda folder: folder == str(tmp_path / "b"))]

    whole, part = stamps()
    (tmp_path / "b" / "1.txt").write_text("x")
    assert stamps()[0] != whole and stamps()[1] == part and part[1] == 1
