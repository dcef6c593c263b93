"""Datasets of one task each, inspected for a joint model."""

import json
from argparse import Namespace

import pytest

from tests.data.damage import CLASSES, HEIGHT, WIDTH, cut, write_pairs
from topformer_d2 import get_config
from topformer_d2.data.boxes import register_boxes
from topformer_d2.data.inspection import inspect_config, inspect_datasets
from topformer_d2.data.multitask import register_multitask
from topformer_d2.data.sem_seg import register_sem_seg
from topformer_d2.engine import setup_run
from topformer_d2.errors import InputError


@pytest.fixture
def mixed(tmp_path, forget):
    """A joint config over mixed_{pixels,boxes,both} of the same three images, with weights.

    The JSON names its files from the folder above, and each has an object of either class; the
    last image of mixed_both has no label.
    """
    write_pairs(tmp_path, 3)
    write_pairs(tmp_path, 2, ("unused", "two_labels"))
    images = [
        {"id": i, "file_name": f"images/{i}.png", "width": WIDTH, "height": HEIGHT}
        for i in range(3)
    ]
    annotations = [
        {"id": i, "image_id": i % 3, "category_id": 1 + i // 3, "bbox": [1, 2, 9, 9]}
        for i in range(6)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    json_file, root, labels = (str(tmp_path / n) for n in ("boxes.json", "", "two_labels"))
    register_sem_seg("mixed_pixels", f"{tmp_path}/images", f"{tmp_path}/labels", CLASSES)
    register_boxes("mixed_boxes", json_file, root)
    register_multitask("mixed_both", json_file, root, labels, stuff=CLASSES)
    cfg = get_config("multitask_lite_topformer_t_synthetic", ["OUTPUT_DIR", f"{tmp_path}/output"])
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 2
    cfg.DATASETS.TRAIN = ("mixed_pixels", "mixed_boxes", "mixed_both")
    cfg.DATASETS.TRAIN_WEIGHTS = [1, 2, 1]
    cfg.DATASETS.TEST = ("mixed_pixels", "mixed_boxes")
    return cfg


PIXELS = [("road", 3 * 1750), ("sky", 3 * 200)]
OBJECTS = [("cat", 3), ("dog", 3)]


def test_a_dataset_is_asked_for_what_it_has(mixed):
    for report in (inspect_config(mixed), inspect_datasets([*mixed.DATASETS.TRAIN])):
        assert report.all_findings == []
        pixels, boxes, both = report.datasets
        assert (pixels.pixels, pixels.objects) == (PIXELS, [])
        assert (boxes.pixels, boxes.objects) == ([], OBJECTS)
        assert both.pixels == [("road", 2 * 1750), ("sky", 2 * 200)] and both.objects == OBJECTS
    lines = str(report).splitlines()
    assert sum("sky" in line for line in lines) == sum("cat" in line for line in lines) == 2


def test_a_detector_is_asked_for_no_pixels_of_both(mixed):
    mixed.MODEL.META_ARCHITECTURE = "LiteRetinaNet"
    mixed.DATASETS.TRAIN, mixed.DATASETS.TRAIN_WEIGHTS = ("mixed_boxes", "mixed_both"), []
    mixed.DATASETS.TEST = ()
    report = inspect_config(mixed)
    assert report.all_findings == []
    assert [(d.pixels, d.objects) for d in report.datasets] == [([], OBJECTS)] * 2


def test_what_is_wrong_is_found_where_it_is(mixed, tmp_path):
    cut(tmp_path / "two_labels/1.png")
    mixed.DATASETS.TRAIN_WEIGHTS = [1, 2]
    report = inspect_config(mixed)
    assert [(f.kind, f.file) for f in report.errors] == [
        ("config", ""),
        ("unreadable file", str(tmp_path / "two_labels/1.png")),
    ]
    assert "DATASETS.TRAIN_WEIGHTS is [1, 2]" in report.findings[0].message
    with pytest.raises(InputError, match=r"TRAIN_WEIGHTS is \[1, 2\]"):
        setup_run(mixed)
    mixed.DATASETS.TRAIN_WEIGHTS = []
    with pytest.raises(InputError, match=r"two_labels/1\.png cannot be read"):
        setup_run(mixed)
    setup_run(mixed, Namespace(config_file="", eval_only=True))


def test_a_label_of_no_image_at_all(mixed, tmp_path):
    (tmp_path / "two_labels/1.png").rename(tmp_path / "two_labels/7.png")
    (finding,) = inspect_config(mixed).all_findings
    assert finding.kind == "label without image"
    assert finding.file == str(tmp_path / "two_labels/7.png")
