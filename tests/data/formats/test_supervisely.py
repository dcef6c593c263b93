"""Supervisely's JSON, as the tool writes it and as it goes wrong."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from topformer_d2.data.formats.supervisely import FORMAT
from topformer_d2.errors import InputError

# The example of the documentation of its SDK: 3x3 pixels, all but the one in the middle.
RING = (
    "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTM"
    "Sa44sKHhISMDuxpTYrr03F6gDIOnq5/LOqeEJgDM5ht6"
)
META = {
    "classes": [
        {"title": "sky", "shape": "bitmap", "color": "#0A0BFF"},
        {"title": "car", "shape": "any", "color": "#FFFFFF"},
    ],
    "tags": [],
}


def obj(kind, title="car", exterior=(), interior=(), **more):
    points = {"exterior": list(exterior), "interior": list(interior)}
    return {"classTitle": title, "geometryType": kind, "tags": [], "points": points} | more


def bitmap(title="sky", data=RING, origin=(5, 7)):
    return {
        "classTitle": title,
        "geometryType": "bitmap",
        "bitmap": {"data": data, "origin": list(origin)},
    }


def write(folder, name, *objects, size=(60, 40)):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"description": "", "tags": [], "objects": list(objects)}
    content["size"] = {"width": size[0], "height": size[1]}
    (folder / name).write_text(json.dumps(content))


SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]
HOLE = [[2, 2], [5, 2], [5, 4], [2, 4]]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps(META))
    write(
        tmp_path / "set/ann",
        "a.jpg.json",
        obj("polygon", exterior=SQUARE),
        obj("polygon", exterior=SQUARE, interior=[HOLE]),
        obj("rectangle", exterior=[[30, 20], [10.5, 5]]),
        bitmap(),
        obj("point", exterior=[[1, 1]]),
        obj("line", exterior=[[1, 1], [2, 2]]),
    )
    write(tmp_path / "set/ann", "b.json")
    return tmp_path


@pytest.mark.parametrize("path", ["", "set", "set/ann"])
def test_objects_of_each_geometry(project, path):
    assert FORMAT.detect(str(project / path), "")
    found = FORMAT.read(str(project / path), str(project / "set/img"))
    assert found.names == ["sky", "car"]
    assert found.colors == {"sky": (10, 11, 255), "car": (255, 255, 255)}
    a, b = found.images
    assert (a.image, a.width, a.height, b.image, b.shapes) == ("a.jpg", 60, 40, "b", ())
    square, ring, box, sky = a.shapes
    assert square.polygons == ((0, 0, 10, 0, 10, 10, 0, 10),)
    expected = np.zeros((40, 60))
    expected[:10, :10] = 1
    expected[2:4, 2:5] = 0
    assert np.array_equal(coco_mask.decode(ring.rle), expected)
    assert box.box == (10.5, 5, 30, 20)
    expected = np.zeros((40, 60))
    expected[7:10, 5:8] = 1
    expected[8, 6] = 0
    assert sky.label == "sky" and np.array_equal(coco_mask.decode(sky.rle), expected)
    assert [p.kind for p in found.problems] == ["annotation not used"]


def test_the_images_say_which_dataset_of_a_project(project):
    write(project / "other/ann", "c.jpg.json")
    assert FORMAT.detect(str(project), "")
    found = FORMAT.read(str(project), str(project / "other/img"))
    assert [image.image for image in found.images] == ["c.jpg"]
    with pytest.raises(InputError, match="other"):
        FORMAT.read(str(project), "")


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        obj("polygon", None, SQUARE),
        obj("polygon", exterior=SQUARE[:2]),
        obj("polygon", exterior=[[0, 0], [1, float("inf")], [2, 2]]),
        obj("polygon", exterior=SQUARE, interior=[[[1, 1]]]),
        obj("polygon", exterior=SQUARE) | {"points": 3},
        obj("polygon", exterior=[[900, 900], [910, 900], [910, 910]], interior=[HOLE]),
        obj("rectangle", exterior=[[1, 1]]),
        bitmap(data="AAAA"),
        bitmap(data=None),
        bitmap(origin=(1,)),
        bitmap(origin=(1, "x")),
        bitmap(origin=(100, 100)),
        bitmap(origin=(-3, 0)),
    ],
)
def test_a_malformed_object_is_told_and_left_out(tmp_path, wrong):
    write(tmp_path, "a.jpg.json", wrong, obj("rectangle", "dog", [[1, 2], [3, 4]]))
    found = FORMAT.read(str(tmp_path), "")
    assert [s.label for s in found.images[0].shapes] == ["dog"] and found.names == ["dog"]
    assert [p.kind for p in found.problems] == ["malformed annotation"]
    assert "objects[0]" in found.problems[0].message and "a.jpg.json" in found.problems[0].message


@pytest.mark.parametrize("content", ["{", "[]", '{"objects": []}', '{"size": {}, "objects": {}}'])
def test_a_malformed_file_is_told(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=r"bad\.json"):
        FORMAT.read(str(tmp_path), "")
    write(tmp_path, "a.json")
    assert [p.file for p in FORMAT.read(str(tmp_path), "").problems] == [str(tmp_path / "bad.json")]


@pytest.mark.parametrize("meta", ["{", "[]", '{"classes": 3}'])
def test_a_malformed_meta_is_refused(project, meta):
    (project / "meta.json").write_text(meta)
    with pytest.raises(InputError, match=r"meta\.json"):
        FORMAT.read(str(project), "")


def test_a_bitmap_reaching_out_is_cut(tmp_path):
    write(tmp_path, "a.json", bitmap(origin=(-1, 38)))
    (shape,) = FORMAT.read(str(tmp_path), "").images[0].shapes
    assert np.argwhere(coco_mask.decode(shape.rle)).tolist() == [[38, 0], [38, 1], [39, 1]]
