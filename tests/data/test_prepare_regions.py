"""Boxes derived from the connected regions of pixel labels."""

import json

import numpy as np
import pytest
from PIL import Image

from topformer_d2.data.prepare.regions import derive_boxes, prepare_camvid, region_boxes


def test_regions_are_connected_by_corners_too_and_small_ones_are_left_out():
    mask = np.zeros((12, 20), bool)
    mask[1:4, 2:7] = True
    mask[4, 7] = True  # touches a corner
    mask[8:12, 15:20] = True  # at the border
    mask[6, 0] = True
    assert sorted(region_boxes(mask)) == [(0, 6, 1, 1, 1), (2, 1, 6, 4, 16), (15, 8, 5, 4, 20)]
    assert sorted(region_boxes(mask, 17)) == [(15, 8, 5, 4, 20)]
    assert region_boxes(np.zeros((3, 3), bool)) == []


@pytest.fixture
def camvid(tmp_path):
    """CamVid's layout with a car (label 8) of 9x10 pixels and a pedestrian (9) of 5x5."""
    label = np.zeros((30, 40), np.uint8)
    label[3:12, 5:15] = 8
    label[20:25, 20:25] = 9
    for folder, pixels in (("train", np.dstack([label] * 3)), ("trainannot", label)):
        (tmp_path / "CamVid" / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "CamVid" / folder / "0001.png")
    return tmp_path


def test_prepare_camvid_derives_boxes(camvid):
    reports = prepare_camvid([str(camvid / "CamVid")], str(camvid))
    assert "1 boxes derived from connected regions" in reports["train"].summary()
    folder = camvid / "camvid/annotations"
    assert [p.name for p in folder.iterdir()] == ["derived_instances_train.json"]
    content = json.loads((folder / "derived_instances_train.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["Car", "Pedestrian", "Bicyclist"]
    assert content["images"] == [{"id": 1, "file_name": "0001.png", "height": 30, "width": 40}]
    assert content["annotations"] == [  # the pedestrian has fewer than 64 pixels
        {
            **{"id": 1, "image_id": 1, "category_id": 1},
            **{"bbox": [5, 3, 10, 9], "area": 90, "iscrowd": 0},
        }
    ]
    assert "derived" in content["info"]["description"]
    roots = (str(camvid / "CamVid/train"), str(camvid / "CamVid/trainannot"))
    smaller = derive_boxes(*roots, {"Pedestrian": 9}, min_pixels=25)["annotations"]
    assert [(a["category_id"], a["bbox"]) for a in smaller] == [(1, [20, 20, 5, 5])]
