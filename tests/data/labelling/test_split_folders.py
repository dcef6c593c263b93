"""A folder of several splits as one entry: the entries to write are printed, and they work."""

import json

import cv2
import numpy as np
import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from tests.data.labelling.writers import write_image, write_labelme
from tests.helpers import topformer
from topformer_d2.data.folders import register_folder
from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError

COUNTS = {"train": 3, "val": 2}


def camvid(root, keys):
    for split, count in COUNTS.items():
        for i in range(count):
            noise = np.random.default_rng(i).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            for folder, value in (
                (split, noise),
                (f"{split}annot", np.eye(30, 40, dtype=np.uint8)),
            ):
                (root / folder).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / folder / f"{split}{i}.png"), value)
    return {"IMAGES": str(root), "LABELS": str(root), **keys}


def roboflow(root, keys):
    for split, count in COUNTS.items():
        for i in range(count):
            write_image(root / split / f"{i}.jpg")
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(count)],
            "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 3, 9, 9]}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return {"IMAGES": str(root), "BOXES": str(root), **keys}


def labelme(root, keys):
    for split, count in COUNTS.items():
        for i in range(count):
            write_image(root / split / f"{i}.jpg")
            write_labelme(root / split / f"{i}.json", ("cat", 2, 3, 12, 13))
    return {"IMAGES": str(root), "LABELS": str(root), "BOXES": str(root), **keys}


def parts(root, keys):
    """images/train, labels/train, ..., but the entry names the labels of one."""
    for split, count in COUNTS.items():
        for i in range(count):
            write_image(root / "images" / split / f"{split}{i}.jpg")
            (root / "labels" / split).mkdir(parents=True, exist_ok=True)
            write_labelme(root / "labels" / split / f"{split}{i}.json", ("cat", 2, 3, 12, 13))
    return {"IMAGES": str(root / "images/train"), "LABELS": str(root / "labels"), **keys}


@pytest.mark.parametrize("write", [camvid, roboflow, labelme, parts])
def test_the_entries_of_the_splits_are_printed_and_work(tmp_path, register, write):
    keys = {"CLASSES": ["road", "car"]} if write is camvid else {"IGNORE": ["dog"]}
    entry = write(tmp_path / "data", keys)
    with pytest.raises(InputError, match=r"several splits") as told:
        register(**entry)
        load_records("own")
    written = str(told.value).partition("DATASETS.FOLDERS: ")[2]
    entries = yaml.safe_load(written)
    assert {*entries} == {"own_train", "own_val"}
    for name, split in entries.items():
        assert {*split} == {*entry} and split.items() >= keys.items()
        register(**split)
        assert len(load_records("own")) == COUNTS[name.removeprefix("own_")]


def test_each_entry_has_a_label_map_of_its_own(tmp_path, register):
    keys = {"LABEL_MAP": CfgNode({"cat": "animal"}), "IGNORE": ["dog"]}
    with pytest.raises(InputError) as told:
        register(**parts(tmp_path / "data", keys), FORMAT="coco")
    written = str(told.value).partition("DATASETS.FOLDERS: ")[2]
    maps = [entry["LABEL_MAP"] for entry in yaml.safe_load(written).values()]
    assert maps == [{"cat": "animal"}] * 2
    assert "&" not in written  # which could not be pasted elsewhere


def test_an_entry_of_one_split_is_not_taken_for_several(tmp_path, register):
    labels = parts(tmp_path / "data", {})["LABELS"]
    with pytest.raises(InputError) as told:
        keys = {"LABEL_MAP": CfgNode({"cat": "cow"}), "CLASSES": ["dog"]}
        register(IMAGES=str(tmp_path / "data/images/train"), LABELS=f"{labels}/train", **keys)
        load_records("own")
    assert "'cow'" in str(told.value) and "splits" not in str(told.value)


def test_the_check_prints_them(tmp_path):
    entry = camvid(tmp_path / "data", {})
    words = ["data", "check", "--images", entry["IMAGES"], "--labels", entry["LABELS"]]
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    for more in ([], ["--classes", tmp_path / "classes.txt"]):
        result = topformer(*words, *more)
        said = result.stdout + result.stderr
        assert result.returncode == 1
        assert f"IMAGES: {tmp_path}/data/val, LABELS: {tmp_path}/data/valannot" in said
    assert "folder" not in DatasetCatalog.list()


def test_folders_of_several_splits_that_fit_are_one_dataset(tmp_path, register):
    entry = parts(tmp_path / "data", {})
    (tmp_path / "data/more").mkdir()
    register(IMAGES=str(tmp_path / "data/images/train"), LABELS=f"{entry['LABELS']}/train")
    assert len(load_records("own")) == 3


def test_other_errors_stay_as_they_are(tmp_path):
    (tmp_path / "train").mkdir()
    entry = {"IMAGES": str(tmp_path), "LABELS": str(tmp_path)}
    with pytest.raises(InputError) as told:
        register_folder("own", entry, str(tmp_path / "cache"))
    assert "splits" not in str(told.value)
