"""LABEL_MAP by names, ids and values; and checks of datasets whose classes differ."""

import json

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from tests.data.labelling.writers import drawn, write_image, write_labelme
from topformer_d2 import get_config
from topformer_d2.data import folders
from topformer_d2.data.inspection import inspect_config, inspect_datasets
from topformer_d2.data.labelling import dataset
from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError


def write_numbered(tmp_path, kind):
    """A dataset of the classes 3, cat, and 8, dog; returns the path of its labels."""
    write_image(tmp_path / "images/0.png")
    if kind == "coco":
        boxes = [([2, 3, 10, 10], 3), ([20, 3, 10, 20], 8)]
        content = {
            "images": [{"id": 1, "file_name": "0.png"}],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": category, "bbox": box}
                for i, (box, category) in enumerate(boxes)
            ],
            "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        }
        (tmp_path / "labels.json").write_text(json.dumps(content))
        return tmp_path / "labels.json"
    (tmp_path / "labels").mkdir()
    lines = ["3 .175 .266667 .25 .333333", "8 .625 .433333 .25 .666667"]
    (tmp_path / "labels/0.txt").write_text("\n".join(lines))
    names = "names: {3: cat, 8: dog}\ntrain: images\n"
    (tmp_path / "data.yaml").write_text(names)
    return tmp_path / "labels"


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_label_map_takes_the_ids_of_the_files(tmp_path, register, kind):
    labels = str(write_numbered(tmp_path, kind))
    paths = {"IMAGES": str(tmp_path / "images"), "LABELS": labels, "BOXES": labels}
    metadata = register(**paths, LABEL_MAP={3: "animal", "dog": "animal"})
    assert metadata.thing_classes == ["animal"]
    assert metadata.stuff_classes == ["background", "animal"]
    (record,) = load_records("own")
    assert [a["category_id"] for a in record["annotations"]] == [0, 0]
    assert np.bincount(drawn(record).ravel()).tolist() == [900, 300]
    metadata = register(**paths, IGNORE=[8])
    (record,) = load_records("own")
    assert metadata.thing_classes == ["cat"] and len(record["annotations"]) == 1
    assert (drawn(record) == 255).sum() == 200
    register(**paths, LABEL_MAP={1: "animal"})
    with pytest.raises(InputError, match=r"own\.LABEL_MAP has '1'.*3 \(cat\).*8 \(dog\)"):
        load_records("own")
    with pytest.raises(InputError, match=r"own\.LABEL_MAP.*'cat'.*'a'.*'b'"):
        register(**paths, LABEL_MAP={3: "a", "cat": "b"})


@pytest.mark.parametrize(("key", "value"), [("LABEL_MAP", {7: "pet"}), ("IGNORE", ["0 0 128"])])
def test_a_number_for_labels_with_names_alone_is_refused(photos, register, key, value):
    register(IMAGES=str(photos), LABELS=str(photos), **{key: value})
    with pytest.raises(InputError, match=rf"own\.{key} has '{next(iter(value))}'.*'cat', 'dog'"):
        load_records("own")


def test_labels_may_be_called_by_numbers(photos, register):
    """Of several splits, one may lack some of them."""
    for i in range(4):
        write_labelme(photos / f"{i}.json", ("1", 2, 3, 12, 13))
    metadata = register(IMAGES=str(photos), BOXES=str(photos), LABEL_MAP={1: "cat", 2: "dog"})
    assert metadata.thing_classes == ["cat"] and len(load_records("own")) == 4


def test_numbers_are_of_the_pixels_where_those_have_values(tmp_path, register):
    """And not ids of the boxes, which have a file of their own."""
    boxes = write_numbered(tmp_path, "coco")
    label = np.full((30, 40), 3, np.uint8)
    (tmp_path / "masks").mkdir()
    Image.fromarray(label).save(tmp_path / "masks/0.png")
    paths = {"LABELS": str(tmp_path / "masks"), "BOXES": str(boxes)}
    metadata = register(IMAGES=str(tmp_path / "images"), **paths, LABEL_MAP={3: "road", 9: "sky"})
    (record,) = load_records("own")
    assert metadata.stuff_classes == ["road", "sky"] and (drawn(record) == 0).all()
    assert metadata.thing_classes == ["cat", "dog"]


@pytest.mark.parametrize("has_fault", [False, True])
def test_a_check_reads_what_is_kept_once(photos, register, monkeypatch, has_fault):
    if has_fault:
        (photos / "1.json").write_text("{")
    register(IMAGES=str(photos), LABELS=str(photos))
    inspect_datasets(["own"])
    read, reads = dataset.read_index, []
    monkeypatch.setattr(dataset, "read_index", lambda *args: reads.append(args) or read(*args))
    report = inspect_datasets(["own"]).datasets[0]
    assert len(reads) == 1 and report.tally.images == 4 - has_fault
    assert [finding.kind for finding in report.tally.findings] == (
        ["malformed annotation", "image without label"] if has_fault else []
    )


def test_datasets_of_other_classes_are_told_the_classes_to_add(photos, tmp_path):
    """And not that their labels, which are right, are out of the range of the first one's."""
    other = tmp_path / "other"
    for i in range(2):
        write_image(other / f"{i}.jpg", (48, 30))
        shapes = [(name, 0, 0, 9 * k, 9) for k, name in enumerate(("owl", "dog", "yak"), 1)]
        write_labelme(other / f"{i}.json", *reversed(shapes), size=(48, 30))
    entries = {
        name: CfgNode({"IMAGES": str(root), "LABELS": str(root)})
        for name, root in (("own_train", photos), ("own_val", other))
    }
    cfg = get_config("seg_topformer_t_synthetic", ["OUTPUT_DIR", str(tmp_path / "output")])
    cfg.DATASETS.FOLDERS = CfgNode(entries)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(entries)[:1], tuple(entries)[1:]
    try:
        folders.use_folders(cfg)
        report = inspect_config(cfg)
    finally:
        for name in entries:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    (finding,) = report.errors
    assert finding.kind == "config" and "CLASSES: [background, cat, dog, owl, yak]" in str(finding)
    assert [name for name, _ in report.datasets[1].pixels] == ["background", "dog", "owl", "yak"]
