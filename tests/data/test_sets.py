"""What only the records together show, by a dataset that has it."""

import json
import logging
import re
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from tests.data.damage import (
    HEIGHT,
    WIDTH,
    box,
    edit_all_boxes,
    edit_all_labels,
    write_pairs,
)
from topformer_d2.data.boxes import register_boxes
from topformer_d2.data.inspection import Expected, inspect_config, inspect_datasets
from topformer_d2.data.inspection.findings import Tally
from topformer_d2.data.inspection.quick import count_pixels
from topformer_d2.data.inspection.sets import inspect_set, unseen_classes
from topformer_d2.engine import setup_run
from topformer_d2.errors import InputError

PLACES = ([1, 2, 9, 9], [30, 20, 15, 16], [20, 25, 10, 12])


def relative(bbox, record):
    x, y, w, h = bbox
    return x / record["width"], y / record["height"], w / record["width"], h / record["height"]


def as_corners(bbox, record):
    x, y, w, h = bbox
    return x, y, x + w, y + h


def list_twice(records):
    """Each image once for each of its boxes."""
    listed = [{**r, "annotations": [a]} for r in records for a in r["annotations"]]
    records[:] = listed


def masks(label):
    """The commonest kind: 0 and 255."""
    return np.where(label == 1, 255, 0)


# Name: (kind, what spoils the records, words of the message).
CASES = {
    "0/255": ("0/255 masks", lambda rs: edit_all_labels(rs, masks), "write the foreground as 1"),
    "background alone": (
        "one class alone",
        lambda rs: edit_all_labels(rs, lambda label: label * 0),
        "of one class, 'road', of 2",
    ),
    "one class in the list": (
        "one class alone",
        lambda rs: (
            MetadataCatalog.get("both").stuff_classes.pop(),
            edit_all_labels(rs, lambda label: label // 255 * 255),
        ),
        "the only class is 'road'",
    ),
    "all ignored": (
        "nothing to learn",
        lambda rs: edit_all_labels(rs, lambda label: label * 0 + 255),
        "all pixels of the labels are 255",
    ),
    "no boxes": (
        "nothing to learn",
        lambda rs: [r["annotations"].clear() for r in rs],
        "no image has an object",
    ),
    "none inside": (
        "nothing to learn",
        lambda rs: edit_all_boxes(rs, lambda bbox, record: (500, 500, *bbox[2:])),
        "no image has an object.*boxes that have no area",
    ),
    "no areas": (
        "nothing to learn",
        lambda rs: edit_all_boxes(rs, lambda bbox, record: (20, 20, -9, -8)),
        "no image has an object",
    ),
    "relative": (
        "boxes within 0 to 1",
        lambda rs: edit_all_boxes(rs, relative),
        r"all 9 boxes lie within 0 to 1, such as \[0.02, 0.05, 0.18, 0.225\]",
    ),
    "some relative": (
        "some boxes within 0 to 1",
        lambda rs: edit_all_boxes(rs[:1], relative),
        "3 of 9 boxes",
    ),
    "corners": (
        "boxes look like corners",
        lambda rs: edit_all_boxes(rs, as_corners),
        "6 of 9 boxes reach out",
    ),
    "once a box": ("image listed twice", list_twice, "lists 3 images more than once.*, 3 times"),
}


@pytest.fixture
def whole(both):
    """The records of "both" with three objects each, well inside their images."""
    for record in both:
        record["annotations"] = [box(list(b), i % 2) for i, b in enumerate(PLACES)]
    return both


def test_nothing_is_found_in_a_good_set(whole):
    assert inspect_datasets(["both"]).all_findings == []
    for record in whole:  # listed twice to weigh more, as Detectron2's users do
        whole.append(dict(record))
        if len(whole) == 6:
            break
    assert inspect_datasets(["both"]).all_findings == []


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_finding_of_a_set(whole, case):
    kind, spoil, words = CASES[case]
    spoil(whole)
    report = inspect_datasets(["both"])
    found = [f for f in report.all_findings if f.kind == kind]
    assert len(found) == 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found[0].message)
    allowed = {kind, "class never seen"}
    allowed |= {"box reaches out", "box outside the image", "box of no area"}
    assert {f.kind for f in report.all_findings} <= allowed


@pytest.fixture
def cfg(whole, tmp_path):
    from topformer_d2 import get_config

    cfg = get_config("multitask_lite_topformer_t_synthetic", ["OUTPUT_DIR", f"{tmp_path}/output"])
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 2
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("both",), ()
    MetadataCatalog.get("both").evaluator_type = "multitask"
    return cfg


@pytest.mark.parametrize("case", CASES)
def test_training_refuses_what_is_certain_and_warns_of_the_rest(cfg, whole, case, caplog):
    kind, spoil, words = CASES[case]
    spoil(whole)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(MetadataCatalog.get("both").stuff_classes)
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        try:
            setup_run(cfg)
        except InputError as e:
            assert kind not in ("some boxes within 0 to 1", "boxes look like corners")
            with pytest.raises(AssertionError, match=words):
                raise AssertionError(str(e)) from None
        else:
            with pytest.raises(AssertionError, match=words):
                raise AssertionError(caplog.text)


def test_a_class_without_pixels_or_objects_is_named_before_training(cfg, whole):
    log = Path(cfg.OUTPUT_DIR) / "log.txt"
    setup_run(cfg)
    assert "WARNING" not in log.read_text()
    MetadataCatalog.get("both").stuff_classes.append("pole")
    MetadataCatalog.get("both").thing_classes.append("bird")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 3
    setup_run(cfg)
    warnings = [line for line in log.read_text().splitlines() if "WARNING" in line]
    assert len(warnings) == 2 and all(re.match(r"\[\d\d/\d\d .*\] topf", x) for x in warnings)
    assert "NO PIXEL of 1 of 3 classes: 'pole' in all 3 training labels" in warnings[0]
    assert "NO OBJECT of 1 of 3 classes: 'bird' among 9 training objects" in warnings[1]


def test_more_labels_are_read_where_the_samples_lack_a_class(tiny_config, tmp_path, forget, caplog):
    """One of 100 labels has class 1, and is not among the 32 samples."""
    from tests.data.damage import CLASSES
    from topformer_d2.data.builtin import register_sem_seg

    write_pairs(tmp_path, 100)
    files = sorted(str(p) for p in (tmp_path / "labels").iterdir())
    for file in files:
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(file)
    register_sem_seg("rare", f"{tmp_path}/images", f"{tmp_path}/labels", CLASSES)
    cfg = tiny_config("DATASETS.TRAIN", "('rare',)", "DATASETS.TEST", "()")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    with pytest.raises(InputError, match=r"of one class, 'road', of 2"):
        setup_run(cfg)
    Image.fromarray(np.ones((HEIGHT, WIDTH), np.uint8)).save(files[50])
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        setup_run(cfg)
    assert "NO PIXEL" not in caplog.text
    pixels, looked = count_pixels(files)
    assert (looked, pixels[1], pixels.sum()) == (100, HEIGHT * WIDTH, 100 * HEIGHT * WIDTH)
    assert count_pixels(files, most=10)[1] == 10 and count_pixels(files, seconds=-1)[1] == 0


def test_masks_in_the_folder_of_the_images(tmp_path, forget):
    """The folder that is named twice: each mask is its own image."""
    from tests.data.damage import CLASSES
    from topformer_d2.data.builtin import register_sem_seg

    write_pairs(tmp_path, 2)
    register_sem_seg("itself", f"{tmp_path}/labels", f"{tmp_path}/labels", CLASSES)
    found = [f for f in inspect_datasets(["itself"]).errors if f.kind == "image is its label"]
    assert [f.file for f in found] == [f"{tmp_path}/labels/{i}.png" for i in range(2)]


def test_training_images_that_are_tested(cfg, whole, caplog):
    DatasetCatalog.register("seen", lambda: whole[1:])
    MetadataCatalog.get("seen").set(
        stuff_classes=["road", "sky"], thing_classes=["cat", "dog"], evaluator_type="multitask"
    )
    cfg.DATASETS.TEST = ("seen",)
    (finding,) = inspect_config(cfg).all_findings
    assert (
        finding.kind == "image in training and test" and "2 of 2 images of seen" in finding.message
    )
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        setup_run(cfg)
    assert "2 of 2 images of seen are among the training images (both)" in caplog.text
    cfg.DATASETS.TEST = ("both",)  # meant
    assert inspect_config(cfg).all_findings == []


def test_unseen_classes_are_listed():
    assert unseen_classes(["a", "b"], [0, 1, 255]) == ""
    assert unseen_classes(["a", "b", "c"], [1]) == "2 of 3 classes: 'a', 'c'"
    assert unseen_classes([str(i) for i in range(150)], []).endswith("'9' and 140 more")


def test_many_records_take_little_time():
    records = [
        {
            "file_name": f"{i}.jpg",
            "width": 640,
            "height": 480,
            "annotations": [box([i % 500, 3, 20, 30], j) for j in range(7)],
        }
        for i in range(20_000)
    ]
    tally, start = Tally(), time.process_time()
    expected = Expected(("instances",), (), tuple(map(str, range(7))), 255)
    inspect_set("many", records, expected, tally)
    assert tally.findings == [] and time.process_time() - start < 3


def test_two_categories_of_one_name(tmp_path, forget):
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "cat "}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    register_boxes("twins", str(tmp_path / "boxes.json"), str(tmp_path))
    (finding,) = inspect_datasets(["twins"]).errors
    assert "categories 2 and 5 have one name, 'cat'" in finding.message
