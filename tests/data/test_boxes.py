"""Boxes: what is dropped, what augmentation makes of them, and how batches are formed."""

import json
import logging
import math

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from topformer_d2.data import build_test_loader, build_train_loader
from topformer_d2.data.boxes import clean_boxes, corners, load_boxes, register_boxes
from topformer_d2.data.loader import TrainLoader
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.errors import InputError


def annotation(bbox, category=0, mode=BoxMode.XYWH_ABS, crowd=0):
    return {"bbox": bbox, "bbox_mode": mode, "category_id": category, "iscrowd": crowd}


@pytest.mark.parametrize("mode", [BoxMode.XYWH_ABS, BoxMode.XYXY_ABS], ids=str)
def test_corners(mode):
    box = [1, 2, 3, 4]
    expected = BoxMode.convert(box, mode, BoxMode.XYXY_ABS)
    assert list(corners(annotation(box, mode=mode))) == expected
    with pytest.raises(InputError, match=r"XYWH_REL.*use XYXY_ABS or XYWH_ABS"):
        corners(annotation(box, mode=BoxMode.XYWH_REL))


def test_boxes_of_no_area_or_outside_are_dropped_with_one_warning(caplog):
    good = [[0, 0, 5, 5], [-3, -3, 4, 4], [98, 48, 10, 10], [7, 7, 1, 1], [7, 7, 0.1, 0.1]]
    bad = [
        *([5, 5, 0, 9], [5, 5, 9, -1], [100, 0, 5, 5], [0, 50, 5, 5], [-9, 0, 9, 5]),
        [math.nan, 0, 5, 5],
        [0, 0, math.inf, 5],
    ]
    records = [
        {"file_name": "a.jpg", "width": 100, "height": 50, "annotations": []},
        {
            "file_name": "b.jpg",
            "width": 100,
            "height": 50,
            "annotations": [
                {**annotation(b), "segmentation": [[0, 0, 9, 0, 9, 9]]}
                for b in (*bad[:3], *good, *bad[3:])
            ],
        },
        {"file_name": "c.jpg", "annotations": [annotation([500, 0, 1, 1]), annotation(bad[0])]},
        {"file_name": "d.jpg"},
    ]
    before = json.dumps(records)
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        kept = clean_boxes(records)
    assert json.dumps(records) == before
    assert [[a["bbox"] for a in r.get("annotations", [])] for r in kept] == [
        [],
        good,
        [[500, 0, 1, 1]],
        [],
    ]
    assert not any("segmentation" in a for r in kept for a in r["annotations"])
    assert [r.message for r in caplog.records] == [
        "dropped 8 boxes of no area or outside their image, in 2 images: b.jpg, c.jpg"
    ]
    caplog.clear()
    clean_boxes(kept)
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].pop("bbox"), r"'annotations' has \['bbox'\] missing"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 5 of image a .*\[1, 2"),
        (lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4]), r"takes x, y, width, height"),
        (lambda c: c["annotations"][0].update(category_id=4), r"category 4, which is not listed"),
        (lambda c: c["annotations"][0].update(ignore=1), r"'ignore'.*use 'iscrowd'"),
        (lambda c: c["annotations"][0].update(iscrowd="0"), r"iscrowd '0'; it takes 0 or 1"),
        (lambda c: c["annotations"][0].update(image_id=1), r"2 annotations .* such as 1, and none"),
        (lambda c: c["categories"][0].update(id="7"), r"'categories' has \['id'\] missing or of"),
        (lambda c: c["images"].append(c["images"][0]), r"id 'a' stands in 'images' more than once"),
        (lambda c: c["images"][0].pop("width"), r"'images' has \['width'\] missing"),
        (lambda c: c["images"].clear(), r"'images' is empty"),
        (lambda c: c.pop("categories"), r"has no 'categories'"),
        (lambda c: c["categories"][0].update(name="d"), r"\['d'\], but .* with \['cat'\]"),
        (None, "is not JSON"),
    ],
    ids=[
        *("no box", "three numbers", "text", "category", "ignore", "crowd"),
        *("unlisted", "text id", "twice", "width", "no images"),
        *("no categories", "other classes", "no JSON"),
    ],
)
def test_a_json_that_is_wrong_is_named(tmp_path, change, message):
    box = {"id": 5, "image_id": "a", "category_id": 7, "bbox": [1, 2, 3, 4.5]}
    content = {
        "images": [{"id": "a", "file_name": "a.jpg", "width": 9, "height": 9}],
        "annotations": [{**box, "segmentation": [[0, 0]]}, {**box, "image_id": "elsewhere"}],
        "categories": [{"id": 7, "name": "cat"}],
    }
    path = tmp_path / "boxes.json"
    MetadataCatalog.get("checked").set(thing_classes=["cat"])
    path.write_text("\ufeff" + json.dumps(content))  # some editors add a byte order mark
    records = load_boxes("checked", str(path), "images")
    assert records == [
        {
            "file_name": "images/a.jpg",
            "image_id": "a",
            "width": 9,
            "height": 9,
            "annotations": [annotation([1, 2, 3, 4.5])],
        }
    ]
    if change:
        change(content)
    path.write_text(json.dumps(content) if change else "{")
    with pytest.raises(InputError, match=message) as error:
        load_boxes("checked", str(path), "images")
    MetadataCatalog.remove("checked")
    assert str(path) in str(error.value)


def _coco():
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 90, "height": 80} for i in (1, 2)],
        "annotations": [
            {"id": 5 + i, "image_id": i, "category_id": 7, "bbox": [1, 2, 3, 4.5]} for i in (1, 2)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
    }


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        *(
            ("annotations", "bbox", [1, 2, bad, 4], r"annotation 6 of image 1.*bbox")
            for bad in (math.nan, math.inf, -math.inf, 1e39, 10**400, 2**25, True, None, "3", [3])
        ),
        ("annotations", "category_id", True, "category_id: an integer"),
        ("annotations", "category_id", 7.0, "category_id: an integer"),
        ("annotations", "category_id", "7", "category_id: an integer"),
        ("annotations", "iscrowd", [[1]], r"annotation 6 of image 1 has iscrowd \[\[1\]\]"),
        ("annotations", "image_id", 1.5, "image_id"),
        *(
            ("images", side, bad, f"image 1 has the '{side}' {bad!s:.6}")
            for side in ("width", "height")
            for bad in (0, -3, 2**31, 10**400)
        ),
        ("images", "width", True, "width: an integer"),
        ("images", "width", 90.5, "width: an integer"),
        ("images", "id", True, "id: an integer"),
        ("images", "id", 10**300, "image 1000.*'id' is beyond"),
        ("images", "file_name", "", "image 1 has the 'file_name' ''"),
        ("images", "file_name", " ", "image 1 has the 'file_name'"),
        ("images", "file_name", "a\0.jpg", "image 1 has the 'file_name'"),
        ("images", "file_name", "/etc/passwd", "'file_name' '/etc/passwd' .* leads out"),
        ("images", "file_name", "a/../../b.jpg", "'file_name' 'a/../../b.jpg' .* leads out"),
        ("images", "file_name", "http://x/a.jpg", "'file_name' 'http://x/a.jpg' .* leads out"),
        ("categories", "id", "7", "id: an integer"),
        ("categories", "id", 7.0, "id: an integer"),
        ("categories", "id", -1, "category 'cat' has the 'id' -1"),
        ("categories", "id", 10**300, "category 'cat' has the 'id' 1000"),
        ("categories", "name", "", "category 7: the class has no name"),
        ("categories", "name", "a\x1b[31m", "category 7: .* has the character"),
        ("categories", "name", "a" * 10_000, "category 7: .* 10000 characters"),
        ("categories", "name", "dog", "categories 7 and 9 have one name, 'dog'"),
        ("categories", "name", "\ud800", "lone surrogate"),
    ],
)
def test_odd_values_of_a_json_are_named(tmp_path, part, key, value, message):
    content = _coco()
    content[part][0][key] = value
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        load_boxes("checked", str(path), str(tmp_path))
    assert str(path) in str(error.value) and len(str(error.value)) < 900


def test_a_json_that_is_nested_or_no_file_is_refused(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(InputError, match=r"boxes\.json is JSON that is nested too deep"):
        load_boxes("checked", str(path), str(tmp_path))
    path.write_text(json.dumps({**_coco(), "images": [[[[["x" * 10**6]]]]]}))
    with pytest.raises(InputError, match=r"'images'") as error:
        load_boxes("checked", str(path), str(tmp_path))
    assert len(str(error.value)) < 900
    with pytest.raises(InputError, match="is a folder"):
        load_boxes("checked", str(tmp_path), str(tmp_path))


def test_file_names_inside_the_folder(tmp_path):
    content = _coco()
    content["images"][0]["file_name"] = str(tmp_path / "images" / "1.jpg")
    content["images"][1]["file_name"] = "a/../2.jpg"
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    records = load_boxes("inside", str(tmp_path / "boxes.json"), str(tmp_path / "images"))
    MetadataCatalog.remove("inside")
    assert [r["file_name"] for r in records] == [
        str(tmp_path / "images/1.jpg"),
        str(tmp_path / "images/a/../2.jpg"),
    ]


@pytest.fixture
def colored(tmp_path):
    """A record whose image is black but for each box, which is full of its class's channel."""
    image = np.zeros((90, 120, 3), np.uint8)
    objects = [([10, 8, 30, 24], 0), ([60, 40, 40, 44], 1), ([100, 2, 12, 12], 2)]
    for (x, y, w, h), category in objects:
        image[y : y + h, x : x + w, 2 - category] = 255
    cv2.imwrite(str(tmp_path / "image.png"), image)
    return {
        "file_name": str(tmp_path / "image.png"),
        "width": 120,
        "height": 90,
        "annotations": [
            *(annotation(box, category) for box, category in objects),
            annotation([0, 0, 120, 90], 1, crowd=1),
        ],
    }


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_boxes_follow_the_image(tiny_detector, colored, flip):
    opts = ["INPUT.SCALE_RANGE", "[0.7, 2.0]", "INPUT.MIN_SIZE_TRAIN", "(120,)"]
    opts += ["INPUT.MAX_SIZE_TRAIN", "120", "INPUT.COLOR_AUG_SSD", "False"]
    mapper = TaskMapper(tiny_detector(*opts, "INPUT.RANDOM_FLIP", flip), is_train=True)
    seen = 0
    for seed in range(30):
        np.random.seed(seed)
        sample = mapper(colored)
        image, instances = sample["image"].numpy(), sample["instances"]
        assert sample["image"].shape[1:] == instances.image_size
        assert max(instances.image_size) <= 64 and sample["height"] == 90
        for box, category in zip(
            instances.gt_boxes.tensor.tolist(), instances.gt_classes.tolist(), strict=True
        ):
            seen += 1
            ys, xs = np.nonzero(image[category] > 127)
            found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else box
            assert np.abs(np.array(found) - box).max() <= 1.5
    assert seen > 30


def test_an_image_of_another_size_than_recorded_is_named(tiny_detector, colored):
    mapper = TaskMapper(tiny_detector(), is_train=False)
    assert "instances" not in mapper(colored) and "annotations" not in mapper(colored)
    with pytest.raises(InputError, match=r"image\.png is \(90, 120\).*for an image of \(120, 90\)"):
        mapper({**colored, "width": 90, "height": 120})


def test_images_without_objects_are_kept_or_left_out(tiny_detector, tmp_path):
    images, annotations = [], []
    for i in range(6):
        Image.fromarray(np.full((64, 80, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
        images.append({"id": 30 - i, "file_name": f"{i}.png", "width": 80, "height": 64})
    boxes = {0: (1, [5, 5, 20, 20], 0), 1: (7, [0, 0, 0, 5], 0), 2: (90, [1, 1, 1, 1], 0)}
    boxes[3] = (7, [0, 0, 60, 60], 1)
    for i, (category, bbox, crowd) in boxes.items():
        entry = {"id": 9 - i, "image_id": 30 - i, "category_id": category, "bbox": bbox}
        annotations.append({**entry, "iscrowd": crowd, "area": bbox[2] * bbox[3]})
    categories = [{"id": c, "name": f"c{c}"} for c in (90, 1, 7)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    register_boxes("six", str(tmp_path / "boxes.json"), str(tmp_path))
    opts = ["DATASETS.TRAIN", "('six',)", "SOLVER.IMS_PER_BATCH", "2"]
    opts += ["INPUT.CROP.ENABLED", "False", "DATALOADER.FILTER_EMPTY_ANNOTATIONS"]
    assert len(build_train_loader(tiny_detector(*opts, "True")).records) == 2
    loader = build_train_loader(tiny_detector(*opts, "False"))
    assert len(loader.records) == 6
    stream = iter(loader)
    samples = {s["file_name"][-5]: s for _ in range(3) for s in next(stream)}
    classes = {name: s["instances"].gt_classes.tolist() for name, s in samples.items()}
    assert classes == {"0": [0], "1": [], "2": [2], "3": [], "4": [], "5": []}  # ids 1, 7, 90
    assert samples["4"]["instances"].gt_boxes.tensor.shape == (0, 4)
    DatasetCatalog.remove("six")
    MetadataCatalog.remove("six")


def test_batches_of_wide_and_of_tall_images():
    sizes = [(90, 60), (60, 90), (90, 60), (80, 80), (60, 90), (70, 50), (50, 70)]
    records = [{"width": w, "height": h} for w, h in sizes]

    def loader():
        def mapper(record):
            return {**record, "noise": np.random.rand()}

        return TrainLoader(
            records, mapper, total_batch_size=3, num_workers=0, seed=4, group_by_shape=True
        )

    stream = iter(loader())
    batches = [next(stream) for _ in range(12)]
    for batch in batches:
        assert len({r["width"] > r["height"] for r in batch}) == 1
    assert {r["width"] > r["height"] for b in batches for r in b} == {True, False}
    resumed = loader()
    resumed.start_iter = 5
    stream = iter(resumed)
    assert [next(stream) for _ in range(7)] == batches[5:]


def test_test_images_keep_their_ids(tiny_detector):
    samples = [batch[0] for batch in build_test_loader(tiny_detector(), "synthetic_boxes_val")]
    assert [s["image_id"] for s in samples] == [12, 13, 14, 15]
    assert all(s["image"].dtype == torch.uint8 and "instances" not in s for s in samples)
