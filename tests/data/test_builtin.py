"""What the registered datasets say of themselves, and both tasks on the same images."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from topformer_d2.cli import data_prepare
from topformer_d2.data import dataset_paths
from topformer_d2.data.builtin import datasets_root
from topformer_d2.data.categories import load_categories
from topformer_d2.data.multitask import load_multitask
from topformer_d2.errors import InputError

# Name with its splits, pixel classes, boxes' classes, evaluator.
REGISTERED = [
    ("ade20k_sem_seg", "train val", 150, None, "sem_seg"),
    ("camvid_sem_seg", "train val test", 11, None, "sem_seg"),
    ("cityscapes_fine_sem_seg", "train val test", 19, None, "cityscapes_sem_seg"),
    ("coco_stuff_10k_sem_seg", "train test", 171, None, "sem_seg"),
    ("coco_stuff_164k_sem_seg", "train val", 171, None, "sem_seg"),
    ("pascal_context_59_sem_seg", "train val", 59, None, "sem_seg"),
    ("pascal_context_60_sem_seg", "train val", 60, None, "sem_seg"),
    ("synthetic_sem_seg", "train val", 6, None, "sem_seg"),
    ("bccd", "train val", None, 3, "coco"),
    ("camvid_multitask", "train val test", 11, 3, "coco"),
    ("coco_2017", "train val", None, 80, "coco"),
    ("synthetic_boxes", "train val", None, 5, "coco"),
    ("coco_2017_multitask", "train val", 171, 80, "coco"),
    ("synthetic_multitask", "train val", 6, 5, "coco"),
]


@pytest.mark.parametrize(("name", "splits", "stuff", "things", "evaluator"), REGISTERED)
def test_metadata(name, splits, stuff, things, evaluator):
    for split in splits.split():
        assert f"{name}_{split}" in DatasetCatalog.list()
        metadata = MetadataCatalog.get(f"{name}_{split}")
        assert metadata.evaluator_type == evaluator
        words = metadata.prepare_command.split()
        assert words[:3] == ["topformer", "data", "prepare"]
        data_prepare.make_parser().parse_args(words[3:])  # or it exits
        if stuff:
            assert len(metadata.stuff_classes) == len(metadata.stuff_colors) == stuff
            assert metadata.ignore_label == 255
        if things:
            assert len(metadata.thing_classes) == len(metadata.thing_colors) == things
            ids = metadata.thing_dataset_id_to_contiguous_id
            assert sorted(ids.values()) == list(range(things))
        assert all(path.startswith(datasets_root()) for path in dataset_paths(metadata.name))


@pytest.mark.parametrize(
    ("name", "count", "source_ids"),
    [
        ("cityscapes", 19, {0: 7, 18: 33}),
        ("coco_stuff10k", 171, {0: 1, 10: 11, 11: 13, 170: 182}),
        ("coco_stuff164k", 171, {0: 0, 10: 10, 11: 12, 170: 181}),
        ("pascal_context59", 59, {0: 2, 1: 9, 58: 458}),
        ("pascal_context60", 60, {0: 0, 1: 2, 59: 458}),
    ],
)
def test_tables_of_the_official_ids(name, count, source_ids):
    categories = load_categories(name)
    assert len(categories.names) == len(set(categories.names)) == count
    table = categories.lookup_table()
    assert table.dtype == np.uint8 and len(table) == (65536 if "pascal" in name else 256)
    assert sorted(set(table.tolist())) == [*range(count), 255]
    assert {t: categories.source_ids[t] for t in source_ids} == source_ids


def test_both_coco_stuff_datasets_and_both_contexts_have_the_same_classes():
    ten, all_of_them = load_categories("coco_stuff10k"), load_categories("coco_stuff164k")
    assert (ten.names, ten.colors) == (all_of_them.names, all_of_them.colors)
    assert tuple(i - 1 for i in ten.source_ids) == all_of_them.source_ids
    assert (
        load_categories("pascal_context60").names[1:] == load_categories("pascal_context59").names
    )


def test_synthetic_multitask_joins_boxes_and_labels_of_an_image():
    records = DatasetCatalog.get("synthetic_multitask_train")
    boxes = DatasetCatalog.get("synthetic_boxes_train")
    labels = {
        r["file_name"]: r["sem_seg_file_name"]
        for r in DatasetCatalog.get("synthetic_sem_seg_train")
    }
    assert len(records) == 12
    for record, with_boxes in zip(records, boxes, strict=True):
        label_file = record.pop("sem_seg_file_name")
        assert record == with_boxes
        assert label_file == labels[record["file_name"]]
        label = cv2.imread(label_file, cv2.IMREAD_UNCHANGED)
        assert label.shape == (record["height"], record["width"])
        for annotation in record["annotations"]:
            x, y, w, h = annotation["bbox"]
            # A pixel of class k + 1 is an object of class k: ground is no object.
            assert annotation["category_id"] + 1 in label[y : y + h, x : x + w]


def test_images_without_label_have_boxes_alone(tmp_path, caplog):
    root = Path(datasets_root()) / "synthetic"
    boxes = root / "annotations/instances_val.json"
    names = [i["file_name"] for i in json.loads(boxes.read_text())["images"]]
    for name in names[1:]:
        shutil.copy(root / "annotations_detectron2/val" / name, tmp_path / name)
    arguments = ("synthetic_multitask_val", str(boxes), str(root / "images/val"), tmp_path)
    records = load_multitask(*arguments)
    assert [Path(r["file_name"]).name for r in records] == names
    assert [r.get("tasks") for r in records] == [("instances",), None, None, None]
    assert [bool(r.get("sem_seg_file_name")) for r in records] == [False, True, True, True]
    assert f"1 of {len(names)} images have no label in {tmp_path}" in caplog.text
    assert f"{names[0]} among them" in caplog.text
    for name in names[1:]:
        (tmp_path / name).rename(tmp_path / f"x{name}")
    with pytest.raises(InputError, match=rf"{len(names)} of {len(names)} images have no label"):
        load_multitask(*arguments)
    with pytest.raises(InputError, match="nowhere does not exist"):
        load_multitask("synthetic_multitask_val", str(boxes), "images", str(tmp_path / "nowhere"))
