"""Own datasets with both kinds of labels, and several of one kind each."""

import json
import os
import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from topformer_d2 import get_config
from topformer_d2.config import load_config
from topformer_d2.data import check_config, dataset_paths
from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError

pytestmark = pytest.mark.usefixtures("forget")
SYNTHETIC = os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a joint config with datasets own_{pixels,boxes,both}, whose files may be changed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(os.path.join(SYNTHETIC, "annotations_detectron2/train"), "labels")
    shutil.copy(os.path.join(SYNTHETIC, "annotations/instances_train.json"), "boxes.json")
    write_classes(6)
    pixels = {"LABELS": "labels", "CLASSES": "classes.txt"}
    boxes = {"BOXES": "boxes.json"}
    folders = {
        f"own_{kind}": {"IMAGES": os.path.join(SYNTHETIC, "images/train"), **keys}
        for kind, keys in {"pixels": pixels, "boxes": boxes, "both": pixels | boxes}.items()
    }
    text = get_config("multitask_lite_topformer_t_synthetic").dump()
    file = tmp_path / "own.yaml"
    file.write_text(text.replace("FOLDERS: {}", f"FOLDERS: {json.dumps(folders)}"))

    def load(*train, test=(), opts=()):
        sets = ["DATASETS.TRAIN", str(tuple(train)), "DATASETS.TEST", str(tuple(test))]
        return load_config(str(file), [*sets, *opts])

    return load


def write_classes(count):
    with open("classes.txt", "w") as f:
        f.writelines(f"class {chr(97 + i)}\n" for i in range(count))
    os.utime("classes.txt", (count, count))


def add_category():
    with open("boxes.json") as f:
        content = json.load(f)
    content["categories"].append({"id": 90, "name": "star"})
    with open("boxes.json", "w") as f:
        json.dump(content, f)
    os.utime("boxes.json", (1, 1))


def counts(cfg):
    return cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CLASSES


UNKNOWN = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "99", "MODEL.RETINANET.NUM_CLASSES", "98"]


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (["own_both"], [], (7, 6)),
        (["own_pixels", "own_boxes"], [], (7, 6)),
        (["own_boxes", "own_pixels"], [], (7, 6)),
        (["own_pixels"], ["own_boxes"], (7, 6)),
        (["own_pixels"], [], (7, 98)),
        (["own_boxes"], [], (99, 6)),
        # The first of a kind decides; where it is none of the user's, the config's number stands.
        (["synthetic_multitask_train", "own_both"], [], (99, 98)),
        (["synthetic_sem_seg_train", "own_both"], [], (99, 6)),
        (["synthetic_boxes_train", "own_both"], [], (7, 98)),
        (["own_pixels", "synthetic_boxes_train"], ["own_both"], (7, 98)),
        # Pixels alone, though Detectron2 gives them thing_classes as well.
        (["cityscapes_fine_sem_seg_train", "own_boxes"], [], (99, 6)),
        (["synthetic_boxes_train"], ["synthetic_sem_seg_val"], (99, 98)),
    ],
)
def test_each_number_of_classes_is_the_first_ones_of_its_kind(load, train, test, expected):
    write_classes(7)
    add_category()
    assert counts(load(*train, test=test, opts=UNKNOWN)) == expected


def test_both_kinds_of_labels_of_an_image(load, caplog):
    kept = sorted(os.listdir("labels"))
    os.rename(f"labels/{kept[0]}", "labels/of no image.png")
    os.remove(f"labels/{kept[1]}")
    cfg = load("own_both")
    check_config(cfg, train=True)
    records = load_records("own_both")
    assert [os.path.basename(r["file_name"]) for r in records] == kept
    assert [r["tasks"] for r in records[:3]] == [("instances",)] * 2 + [("sem_seg", "instances")]
    assert records[2]["sem_seg_file_name"] == f"labels/{kept[2]}"
    assert records[2]["annotations"] and (records[2]["width"], records[2]["height"]) == (80, 64)
    assert "2 of 12 images have no label in" in caplog.text
    images = os.path.join(SYNTHETIC, "images/train")
    assert set(dataset_paths("own_both")) == {"boxes.json", "classes.txt", "labels", images}


@pytest.mark.parametrize("name", ["boxes.json", "classes.txt"])
def test_changed_classes_are_registered_anew(load, name):
    assert counts(load("own_both", opts=UNKNOWN)) == (6, 5)
    if name == "boxes.json":
        add_category()
    else:
        write_classes(7)
    assert counts(load("own_both", opts=UNKNOWN)) == ((6, 6) if name == "boxes.json" else (7, 5))
    metadata = MetadataCatalog.get("own_both")
    assert len(metadata.stuff_classes) + len(metadata.thing_classes) == 12
    assert len(DatasetCatalog.get("own_both")) == 12


@pytest.mark.parametrize("name", ["boxes.json", "classes.txt"])
def test_a_file_that_comes_later(load, name, caplog):
    os.rename(name, "elsewhere")
    cfg = load("own_both", opts=UNKNOWN)
    assert counts(cfg) == ((6, 98) if name == "boxes.json" else (99, 5))
    key = {"boxes.json": "BOXES", "classes.txt": "CLASSES"}[name]
    assert f"own_both.{key}: {os.path.abspath(name)} is missing, so the classes" in caplog.text
    with pytest.raises(InputError, match=rf"own_both names {name}, but .* is missing or empty"):
        check_config(cfg, train=True)
    os.rename("elsewhere", name)
    cfg = load("own_both", opts=UNKNOWN)
    assert counts(cfg) == (6, 5)
    check_config(cfg, train=True)


def test_other_files_under_the_same_name_replace_those_before(load):
    load("own_both")
    for key in ("BOXES", "LABELS"):
        opts = [f"DATASETS.FOLDERS.own_both.{key}", "elsewhere"]
        load("own_both", opts=opts)
        assert MetadataCatalog.get("own_both").folders[key] == "elsewhere"


def test_classes_that_differ_between_the_datasets_of_a_kind(load):
    cfg = load("own_pixels", "own_boxes", "synthetic_multitask_train", opts=UNKNOWN)
    assert counts(cfg) == (6, 5)
    with pytest.raises(
        InputError, match=r"'synthetic_multitask_train' has the classes \['ground'.*'own_pixels'"
    ):
        check_config(cfg, train=True)
    check_config(load("own_pixels", "own_boxes", "synthetic_boxes_train"), train=True)


def test_two_images_of_a_stem_are_not_given_the_same_label(load, tmp_path):
    with open("boxes.json") as f:
        content = json.load(f)
    shutil.copytree(os.path.join(SYNTHETIC, "images/train"), "images")
    for image in content["images"][:2]:
        os.mkdir(f"images/{image['id']}")
        shutil.move(f"images/{image['file_name']}", f"images/{image['id']}/0.png")
        image["file_name"] = f"{image['id']}/0.png"
    with open("boxes.json", "w") as f:
        json.dump(content, f)
    load("own_both", opts=["DATASETS.FOLDERS.own_both.IMAGES", "images"])
    assert len(DatasetCatalog.get("own_both")) == 12  # neither has a label
    shutil.copy(sorted(os.scandir("labels"), key=lambda e: e.name)[0], "labels/0.png")
    with pytest.raises(InputError, match=r"0/0\.png and .*/1/0\.png of boxes\.json share a stem"):
        DatasetCatalog.get("own_both")
