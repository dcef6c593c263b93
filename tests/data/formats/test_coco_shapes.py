"""COCO's JSON, as tools write it and as it goes wrong."""

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from topformer_d2.data.formats.coco_shapes import FORMAT
from topformer_d2.errors import InputError

MASK = np.zeros((40, 60), np.uint8, order="F")
MASK[5:20, 10:30] = MASK[39, 59] = MASK[0, 0] = 1
PACKED = coco_mask.encode(MASK)["counts"]
BASE = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40},
        {"id": 2, "file_name": "b.jpg", "width": 60, "height": 40},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
    "annotations": [],
}


def ann(**keys):
    return {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10]} | keys


def read(folder, *annotations, images="", **parts):
    path = folder / "instances.json"
    path.write_text(json.dumps(BASE | {"annotations": list(annotations)} | parts))
    return FORMAT.read(str(path), images)


def kinds(found):
    return [p.kind for p in found.problems]


def runs(mask):
    flat = np.r_[0, mask.ravel(order="F").astype(int), 2]
    return np.diff(np.r_[0, np.flatnonzero(np.diff(flat))]).tolist()


@pytest.mark.parametrize(
    "counts",
    [PACKED.decode(), str(PACKED), runs(MASK)],
    ids=["compressed", "bytes as text", "list"],
)
def test_masks_of_each_form(tmp_path, counts):
    rle = {"size": [40, 60], "counts": counts}
    found = read(tmp_path, ann(segmentation=rle, iscrowd=1), ann(segmentation=rle, bbox=None))
    assert not found.problems and found.names == ["cat", "dog"]
    crowd, shape = found.images[0].shapes
    assert crowd.is_crowd and not shape.is_crowd and shape.box is None
    rle = shape.rle
    if isinstance(counts, list):
        rle = coco_mask.frPyObjects(rle, *rle["size"])
    assert np.array_equal(coco_mask.decode(rle), MASK)


def test_polygons_and_boxes(tmp_path):
    triangle = [0, 0, 9.5, 0, 9, 8]
    found = read(
        tmp_path,
        ann(segmentation=[triangle, [20, 20, 30, 20, 30, 30]], bbox=[0, 0, 30, 30]),
        ann(segmentation=[], bbox=["1", "2.5", "3", 4], image_id="2"),
        ann(segmentation=triangle, bbox=[], category_id="3", image_id=2.0),
        ann(segmentation=[triangle, [1, 1, 2, 2]], bbox=[0, 0, 0, 0], image_id=2),
        images=str(tmp_path),
    )
    assert not found.problems
    a, b = found.images
    assert (a.image, a.width, a.height) == ("a.jpg", 60, 40)
    assert a.shapes[0].polygons == (tuple(triangle), (20, 20, 30, 20, 30, 30))
    assert a.shapes[0].box == (0, 0, 30, 30)
    assert [(s.label, s.box, s.polygons) for s in b.shapes] == [
        ("dog", None, (tuple(triangle),)),
        ("cat", (0, 0, 0, 0), (tuple(triangle),)),
        ("cat", (1, 2.5, 4, 6.5), ()),
    ]


def test_larger_shapes_are_drawn_first_and_crowds_before_all(tmp_path):
    small, large = [1, 1, 3, 3], [1, 1, 20, 20]
    found = read(
        tmp_path,
        ann(bbox=small),
        ann(bbox=[1, 1, 4, 4], area="300", category_id=3),
        ann(bbox=[2, 1, 2, 2], area=float("nan"), iscrowd=1),
        ann(bbox=large),
        ann(bbox=None, segmentation=[[0, 0, 40, 0, 40, 20, 0, 20]]),
    )
    shapes = found.images[0].shapes
    assert [s.is_crowd for s in shapes] == [True] + [False] * 4
    assert [s.box for s in shapes] == [
        (2, 1, 4, 3),
        None,
        (1, 1, 21, 21),
        (1, 1, 5, 5),
        (1, 1, 4, 4),
    ]


def test_duplicates_are_told_and_one_is_kept(tmp_path):
    found = read(
        tmp_path,
        ann(),
        ann(id=2),
        ann(id=3, category_id=3),
        ann(id=4, image_id=2),
        ann(id=5, bbox=[0, 0, 0, 0], segmentation=[[0, 0, 1, 0, 1, 1]]),
        ann(id=6, bbox=[0, 0, 0, 0], segmentation=[[5, 0, 6, 0, 6, 1]]),
    )
    assert [len(image.shapes) for image in found.images] == [4, 1]
    assert kinds(found) == ["duplicate annotation"]
    assert "annotation 2 of a.jpg" in found.problems[0].message


@pytest.mark.parametrize(
    ("categories", "used", "names"),
    [
        # Roboflow's.
        ([(0, "animals", "none"), (1, "cat", "animals"), (2, "dog", "animals")], 1, ["cat", "dog"]),
        ([(0, "animals", "none"), (1, "cat", "animals")], 0, ["animals", "cat"]),
        ([(0, "cat", None), (1, "dog", None)], 1, ["cat", "dog"]),
        ([(0, "cat", "cat"), (1, "dog", "dog")], 1, ["cat", "dog"]),
        ([("10", "cat", ""), ("9", "dog", "")], 9, ["dog", "cat"]),
        ([(1, "cat", ""), (2, "cat", "")], 1, ["cat"]),
    ],
)
def test_categories_of_tools(tmp_path, categories, used, names):
    keys = ("id", "name", "supercategory")
    entries = [dict(zip(keys, each, strict=True)) for each in categories]
    found = read(tmp_path, ann(category_id=used), categories=entries)
    assert found.names == names and not found.problems


@pytest.mark.parametrize("color", [[1, 2, 255], "#0102ff"])
def test_colours(tmp_path, color):
    categories = [{"id": 1, "name": "cat", "color": color}, {"id": 2, "name": "x", "color": "red"}]
    assert read(tmp_path, categories=categories).colors == {"cat": (1, 2, 255)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("set/a.jpg", "set/a.jpg"),
        ("set\\a.jpg", "set/a.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("100%25.jpg", "100%25.jpg"),
        ("%zz.jpg", "%zz.jpg"),
    ],
)
def test_names_of_images(tmp_path, name, expected):
    (tmp_path / "a b.jpg").touch()
    (tmp_path / "100%25.jpg").touch()
    path = tmp_path / "c.json"
    path.write_text(json.dumps(BASE | {"images": [{"id": "x1", "file_name": name}]}))
    found = FORMAT.read(str(path), str(tmp_path))
    assert [(i.image, i.width, i.shapes) for i in found.images] == [(expected, None, ())]


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        None,
        ann(image_id=7),
        ann(image_id=[1]),
        ann(category_id=7),
        ann(category_id={}),
        ann(category_id=True),
        ann(bbox=None),
        ann(bbox=[1, 2, 3]),
        ann(bbox=[1, 2, -3, 4]),
        ann(bbox=[1, 2, float("nan"), 4]),
        ann(bbox=[1, 2, float("inf"), 4]),
        ann(bbox=[1, 2, 10**400, 4]),
        ann(bbox=[1, 2, None, 4]),
        ann(bbox="1 2 3 4"),
        ann(iscrowd=[1]),
        ann(iscrowd=5),
        ann(segmentation="polygon"),
        ann(segmentation=[[1, 2, 3, 4, 5]]),
        ann(segmentation=[[1, 2, 3, 4, 5, float("nan")]]),
        ann(segmentation=[[1, 2, 3, 4, 5, [6]]]),
        ann(segmentation=[{"x": 1}]),
        ann(segmentation={"size": [40, 60]}),
        ann(segmentation={"size": [40, 60], "counts": []}),
        ann(segmentation={"size": [40, 60], "counts": [1, 2]}),
        ann(segmentation={"size": [40, 60], "counts": [-1, 2401]}),
        ann(segmentation={"size": [40, 60], "counts": [2400.5]}),
        ann(segmentation={"size": [40, 60], "counts": [10**30]}),
        ann(segmentation={"size": [40, 60], "counts": ""}),
        ann(segmentation={"size": [40, 60], "counts": "~~~"}),
        ann(segmentation={"size": [40, 60], "counts": "é"}),
        ann(segmentation={"size": [40, 60], "counts": "oooooooooooooooo"}),
        ann(segmentation={"size": [40, 60], "counts": PACKED.decode()[:-1]}),
        ann(segmentation={"size": [60, 41], "counts": PACKED.decode()}),
        ann(segmentation={"size": [10**6, 10**6], "counts": [10**12]}),
        ann(segmentation={"size": "40x60", "counts": PACKED.decode()}),
    ],
)
def test_a_malformed_annotation_is_told_and_left_out(tmp_path, wrong):
    found = read(tmp_path, wrong, ann(id=2, category_id=3, bbox=[3, 3, 5, 5]))
    assert [s.label for s in found.images[0].shapes] == ["dog"]
    assert kinds(found) == ["malformed annotation"]
    assert "instances.json" in found.problems[0].message


@pytest.mark.parametrize(
    "parts",
    [
        {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]},
        {"images": [*BASE["images"], {"id": 9}]},
        {"images": [*BASE["images"], {"file_name": "a.jpg"}, 3]},
        {"images": [*BASE["images"], {"id": 9, "file_name": "\0"}]},
        {"categories": [*BASE["categories"], {"id": 9}]},
        {"categories": [*BASE["categories"], {"name": "x"}, 3]},
        {"categories": [*BASE["categories"], {"id": 3, "name": "x"}]},
        {"categories": [*BASE["categories"], {"id": 4, "name": "x" * 999}]},
    ],
)
def test_a_malformed_entry_is_told_and_left_out(tmp_path, parts):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(BASE | {"annotations": [ann()]} | parts))
    found = FORMAT.read(str(path), "")
    assert kinds(found) == ["malformed annotation"]
    assert found.names == ["cat", "dog"] and len(found.images[0].shapes) == 1


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"images": {}}, "'images'"),
        ({"annotations": None}, "'annotations'"),
        ({"categories": []}, "category"),
        ({"images": []}, "image"),
        ({"annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}, "category_id"),
        ({"annotations": [{"id": 1, "image_id": 1, "segments_info": []}]}, "panoptic"),
    ],
)
def test_another_file_is_refused(tmp_path, parts, named):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(BASE | parts))
    with pytest.raises(InputError, match=named):
        FORMAT.read(str(path), "")


def test_the_json_of_roboflow_is_found_in_its_folder(tmp_path):
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(BASE | {"annotations": [ann()]}))
    (tmp_path / "other.json").write_text("{}")
    assert FORMAT.detect(str(tmp_path), str(tmp_path))
    assert len(FORMAT.read(str(tmp_path), str(tmp_path)).images) == 2


def test_the_strict_reader_agrees(tmp_path):
    """On a file that is as COCO says."""
    from topformer_d2.data.coco_json import read_boxes, read_coco

    content = copy.deepcopy(BASE)
    content["annotations"] = [ann(), ann(id=2, bbox=[3, 4, 5, 6], category_id=3, iscrowd=1)]
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    strict = read_coco(str(path))
    boxes = [
        (strict["categories"][b.category]["name"], b.bbox, bool(b.iscrowd))
        for b in read_boxes(strict, str(path))
    ]
    found = FORMAT.read(str(path), "")
    ours = [
        (s.label, [s.box[0], s.box[1], s.box[2] - s.box[0], s.box[3] - s.box[1]], s.is_crowd)
        for s in found.images[0].shapes
    ]
    assert sorted(boxes) == sorted(ours) and found.names == [
        c["name"] for c in strict["categories"]
    ]


@pytest.mark.parametrize("tool", ["supervision", "datumaro"])
def test_files_of_tools_are_read(tmp_path, tool):
    pytest.importorskip(tool)
    from PIL import Image

    (tmp_path / "images").mkdir()
    image = str(tmp_path / "images/a.png")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(image)
    mask = np.zeros((40, 60), bool)
    mask[5:20, 10:30] = True
    if tool == "supervision":
        import supervision as sv

        detections = sv.Detections(
            np.array([[10, 5, 30, 20.0]]), mask=mask[None], class_id=np.array([1])
        )
        sv.DetectionDataset(["cat", "dog"], [image], {image: detections}).as_coco(
            annotations_path=str(tmp_path / "out/a.json")
        )
    else:
        from datumaro import Dataset, DatasetItem, Mask
        from datumaro import Image as Media

        item = DatasetItem(
            "a", media=Media.from_file(path=image), annotations=[Mask(mask, label=1)]
        )
        Dataset.from_iterable([item], categories=["cat", "dog"]).export(
            str(tmp_path / "out"), "coco_instances"
        )
    (file,) = (tmp_path / "out").rglob("*.json")
    assert FORMAT.detect(str(file), "")
    found = FORMAT.read(str(file), str(tmp_path / "images"))
    assert found.names == ["cat", "dog"] and not found.problems
    (only,) = found.images
    assert (only.image, only.width, only.height) == ("a.png", 60, 40)
    assert only.shapes[0].label == "dog"
    assert only.shapes[0].box == pytest.approx((10, 5, 30, 20), abs=1.01)
