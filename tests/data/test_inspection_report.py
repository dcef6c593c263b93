"""Datasets inspected as a whole: reports, and the quick form before training."""

import json
from argparse import Namespace

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from tests.data.damage import (
    CLASSES,
    HEIGHT,
    WIDTH,
    box,
    cut,
    edit_label,
    set_boxes,
    with_value,
    write_pairs,
)
from topformer_d2.data.boxes import register_boxes
from topformer_d2.data.builtin import register_sem_seg
from topformer_d2.data.inspection import (
    inspect_config,
    inspect_datasets,
)
from topformer_d2.data.registered import spread_evenly
from topformer_d2.engine import setup_run
from topformer_d2.errors import InputError


def test_a_loader_that_refuses_still_ends_in_a_report(tmp_path, forget):
    write_pairs(tmp_path, 3)
    (tmp_path / "images/0.png").unlink()
    (tmp_path / "labels/1.png").unlink()
    register_sem_seg("gaps", str(tmp_path / "images"), str(tmp_path / "labels"), CLASSES)
    report = inspect_datasets(["gaps"])
    found = {finding.kind: finding for finding in report.all_findings}
    assert found.keys() == {"dataset", "label without image", "image without label"}
    assert "1 labels of" in found["dataset"].message
    assert found["label without image"].file == str(tmp_path / "labels/0.png")
    assert found["image without label"].file == str(tmp_path / "images/1.png")
    assert report.datasets[0].pixels == [("road", 1750), ("sky", 200)]  # of the pair that is left
    DatasetCatalog.register("raises", lambda: 1 // 0)
    (finding,) = inspect_datasets(["raises"]).errors
    assert finding.message == (
        "dataset 'raises' cannot be loaded: ZeroDivisionError: integer division or modulo by zero"
    )
    (finding,) = inspect_datasets(["nothing"]).errors
    assert finding.kind == "dataset" and "'nothing', which is not registered" in finding.message


def test_boxes_from_coco_json(tmp_path, forget):
    write_pairs(tmp_path, 3)
    for split, numbers in (("train", (0, 9)), ("val", (1,))):
        images = [
            {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in numbers
        ]
        annotations = [
            {"id": 10 * i, "image_id": i, "category_id": 7, "bbox": [1, 1, 5, 5], "iscrowd": 0}
            for i in numbers
        ]
        crowd = {"id": 99, "image_id": numbers[0], "category_id": 3, "bbox": [0, 0, 50, 40]}
        content = {"images": images, "annotations": [*annotations, {**crowd, "iscrowd": 1}]}
        content["categories"] = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        register_boxes(f"b_{split}", str(tmp_path / f"{split}.json"), str(tmp_path / "images"))
    report = inspect_datasets(["b_train", "b_val", "b_train"])
    assert [dataset.name for dataset in report.datasets] == ["b_train", "b_val"]
    train, val = (dataset.tally.findings for dataset in report.datasets)
    # Image 1 is the other split's; image 2 nobody's.
    assert [(f.kind, f.file[-5:]) for f in train] == [
        ("missing file", "9.png"),
        ("class never seen", ""),
        ("image without label", "2.png"),
    ]
    assert train[1].message == "b_train has no object of cat"
    assert [f.kind for f in val] == ["class never seen"]
    assert report.datasets[0].objects == [("cat", 0), ("dog", 2)]
    assert report.datasets[0].label_names == ()


def test_processes_find_what_one_finds(tmp_path, forget, monkeypatch):
    write_pairs(tmp_path, 70)
    for i in (5, 69):
        cut(tmp_path / f"labels/{i}.png")
    register_sem_seg("seventy", str(tmp_path / "images"), str(tmp_path / "labels"), CLASSES)
    report = inspect_datasets(["seventy"]).as_dict()
    monkeypatch.setattr("topformer_d2.data.inspection.datasets._IMAGES_A_PROCESS", 1000)
    assert inspect_datasets(["seventy"]).as_dict() == report
    assert report["datasets"]["seventy"]["pixels"][1] == {"class": "sky", "count": 68 * 200}
    files = [finding["file"] for finding in report["datasets"]["seventy"]["findings"]]
    assert sorted(files) == [str(tmp_path / f"labels/{i}.png") for i in (5, 69)]


def test_the_table_and_the_json(both, tmp_path):
    for record in both:
        edit_label(record, lambda label: with_value(label * 0, 9))
    cut(both[2]["file_name"])
    set_boxes(both[0], box([40, 2, 12, 9]))
    report = inspect_datasets(["both"])
    text = str(report)
    assert text.startswith("both: 3 images, 4 errors, 2 warnings\n\nseverity")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[4:8] == [
        "error unreadable file 1",
        "error label out of range 3",
        "warning box reaches out 1",
        "warning class never seen 1",
    ]
    assert f"error: {both[2]['file_name']} cannot be read: image file is truncated" in text
    assert "warning: both has no pixel of sky" in text
    assert "road 5997 99.95%" in lines and "sky 0 0.00%" in lines and "cat 4" in lines
    assert text.endswith("\n\nin all: 4 errors, 2 warnings")
    content = report.as_dict()
    assert (content["errors"], content["warnings"], content["config"]) == (4, 2, [])
    dataset = content["datasets"]["both"]
    assert dataset["images"] == 3 and dataset["ignored_pixels"] == 0
    assert dataset["pixels"] == [{"class": "road", "count": 5997}, {"class": "sky", "count": 0}]
    assert dataset["objects"] == [{"class": "cat", "count": 4}, {"class": "dog", "count": 3}]
    assert dataset["findings"][-1] == {
        "severity": "warning",
        "kind": "class never seen",
        "file": "",
        "message": "both has no pixel of sky",
    }
    assert json.loads(json.dumps(content)) == content


def test_many_classes_stand_side_by_side(both):
    names = [f"c{i:03d}" for i in range(150)]
    MetadataCatalog.get("both").ignore_label = 65535  # which no 8-bit label holds
    for record in both:
        edit_label(record, lambda label: Image.fromarray(label % 2))
    MetadataCatalog.get("both").stuff_classes.extend(names)
    lines = str(inspect_datasets(["both"])).splitlines()
    assert "  and 147 more" in lines
    assert len(lines) < 75 and any("c000" in line and "c102" in line for line in lines)


def test_a_config_that_does_not_fit(tiny_config):
    report = inspect_config(tiny_config())
    assert report.errors == [] and [d.tally.images for d in report.datasets] == [12, 4]
    report = inspect_config(tiny_config("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"))
    assert [(f.kind, f.message[:41]) for f in report.findings] == [
        ("config", "MODEL.SEM_SEG_HEAD.NUM_CLASSES is 4, but ")
    ]
    # Labels are held against the config's classes.
    assert "4 classes are 0 to 3" in report.datasets[0].tally.findings[0].message
    assert str(report).startswith("severity    finding      count\n")
    report = inspect_config(tiny_config("DATASETS.TRAIN", "('ade20k_sem_seg_train',)"))
    assert [f.kind for f in report.errors] == ["dataset"]
    with pytest.raises(InputError, match=r"TRAIN and DATASETS\.TEST are empty"):
        inspect_config(tiny_config("DATASETS.TRAIN", "()", "DATASETS.TEST", "()"))


def test_a_detector_is_not_asked_for_pixel_labels(tiny_detector, both):
    cut(both[0]["sem_seg_file_name"])
    cfg = tiny_detector("DATASETS.TRAIN", "('both',)", "DATASETS.TEST", "()")
    cfg.MODEL.RETINANET.NUM_CLASSES = 2
    report = inspect_config(cfg)
    assert report.all_findings == [] and report.datasets[0].pixels == []
    assert report.datasets[0].objects == [("cat", 3), ("dog", 3)]


def test_samples_are_spread_over_all():
    records = [{"i": i} for i in range(100)]
    chosen = [record["i"] for record in spread_evenly(records, 32)]
    assert len(set(chosen)) == 32 and chosen[0] == 0 and chosen[-1] == 99
    assert set(np.diff(chosen)) == {3, 4}
    assert spread_evenly(records, 200) == records


def test_the_quick_form_before_training(tiny_config, tmp_path, forget, monkeypatch):
    write_pairs(tmp_path, 100)
    register_sem_seg("hundred", str(tmp_path / "images"), str(tmp_path / "labels"), CLASSES)
    opts = ["DATASETS.TRAIN", "('hundred',)", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2"]
    cfg = tiny_config(*opts, "DATASETS.TEST", "('hundred',)")
    cut(tmp_path / "images/49.png")  # the 44th by name; the 43rd and 47th are looked at
    setup_run(cfg)
    for i in (0, 99):
        cut(tmp_path / f"labels/{i}.png")
    output = tmp_path / "again"
    cfg.OUTPUT_DIR = str(output)
    with pytest.raises(InputError) as error:
        setup_run(cfg, Namespace(config_file="my.yaml", eval_only=False))
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/labels/0.png cannot be read: ")
    assert message.endswith(
        " (1 more among 32 samples); topformer data check --config-file my.yaml shows all"
    )
    assert not output.exists()
    with monkeypatch.context() as patch:
        patch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
        setup_run(cfg)


def test_evaluation_looks_at_the_test_images_alone(tiny_config, tmp_path, forget):
    write_pairs(tmp_path, 2)
    write_pairs(tmp_path, 2, ("images_val", "labels_val"))
    for split, end in (("train", ""), ("val", "_val")):
        folders = (str(tmp_path / f"{name}{end}") for name in ("images", "labels"))
        register_sem_seg(f"two_{split}", *folders, CLASSES)
    cfg = tiny_config("DATASETS.TRAIN", "('two_train',)", "DATASETS.TEST", "('two_val',)")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    args = Namespace(config_file="", eval_only=True)
    cut(tmp_path / "images/0.png")
    setup_run(cfg, args)
    with pytest.raises(InputError, match=r"images/0\.png cannot be read.*--config-file \.\.\. sho"):
        setup_run(cfg)
    cut(tmp_path / "labels_val/0.png")
    with pytest.raises(InputError, match=r"labels_val/0\.png cannot be read"):
        setup_run(cfg, args)
