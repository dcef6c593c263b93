"""The formats that DATASETS.FOLDERS takes, and what a new one needs."""

import json
import math
import os
import shutil

import pytest
from detectron2.data import DatasetCatalog

from tests.data import text_boxes
from topformer_d2 import get_config
from topformer_d2.config import load_config
from topformer_d2.data import check_config, coco_json, dataset_paths, formats, plain
from topformer_d2.data.coco_json import corners
from topformer_d2.data.formats import FORMATS, register
from topformer_d2.data.images import read_label
from topformer_d2.data.registered import load_records
from topformer_d2.engine import Trainer, setup_run
from topformer_d2.errors import InputError

pytestmark = pytest.mark.usefixtures("forget")
SYNTHETIC = os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic")
NAMES = ["disc", "square", "triangle", "cross", "ring"]


@pytest.fixture
def text_format(monkeypatch):
    """The format of text_boxes, registered for a test."""
    monkeypatch.setattr(formats, "FORMATS", dict(FORMATS))
    register(text_boxes.FORMAT)
    monkeypatch.setattr(plain, "FORMATS", formats.FORMATS)


def test_a_name_is_registered_once(text_format):
    with pytest.raises(ValueError, match="'text_boxes' is registered"):
        register(text_boxes.FORMAT)


def write_texts(split):
    with open(os.path.join(SYNTHETIC, f"annotations/instances_{split}.json")) as f:
        content = json.load(f)
    names = {c["id"]: c["name"] for c in content["categories"]}
    os.mkdir(f"texts_{split}")
    for image in content["images"]:
        with open(f"texts_{split}/{os.path.splitext(image['file_name'])[0]}.boxes", "w") as f:
            for a in content["annotations"]:
                if a["image_id"] == image["id"]:
                    print(names[a["category_id"]], *a["bbox"], file=f)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a config whose datasets own_{train,val} have the entries given for a split."""
    monkeypatch.chdir(tmp_path)

    def load(base, entry, *opts):
        folders = {}
        for split in ("train", "val"):
            keys = {key: path.format(split) for key, path in entry.items()}
            folders[f"own_{split}"] = {"IMAGES": f"{SYNTHETIC}/images/{split}", **keys}
        text = get_config(base).dump().replace("FOLDERS: {}", f"FOLDERS: {json.dumps(folders)}")
        (tmp_path / "own.yaml").write_text(text)
        sets = ["DATASETS.TRAIN", "('own_train',)", "DATASETS.TEST", "('own_val',)"]
        small = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", "output"]
        return load_config("own.yaml", [*sets, *small, *opts])

    return load


SMALL = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST"]
SHORT = [*SMALL, "64", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1"]


def corners_of(record):
    return [(a["category_id"], *map(float, corners(a))) for a in record["annotations"]]


def test_one_module_makes_a_format(load, text_format):
    write_texts("train")
    write_texts("val")
    with open("names.txt", "w") as f:
        f.write("\n".join(NAMES))
    entry = {"BOXES": "texts_{}", "CLASSES": "names.txt"}
    cfg = load("det_retinanet_lite_topformer_t", entry, *SHORT)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 5
    assert set(dataset_paths("own_val")) == {f"{SYNTHETIC}/images/val", "texts_val", "names.txt"}
    own = load_records("own_val")
    expected = DatasetCatalog.get("synthetic_boxes_val")
    assert list(map(corners_of, own)) == list(map(corners_of, expected))
    assert [(r["width"], r["height"]) for r in own] == [(80, 64)] * 4
    setup_run(cfg)
    trainer = Trainer(cfg)
    trainer.train()
    assert math.isfinite(trainer.storage.history("total_loss").latest())
    assert 0 <= trainer._last_eval_results["bbox"]["AP"] <= 100
    # Its files are known to the checks of datasets.
    os.remove(f"texts_val/{os.path.splitext(own[0]['image_id'])[0]}.boxes")
    assert len(load_records("own_val")) == 3
    cfg = load("det_retinanet_lite_topformer_t", {"BOXES": "gone", "CLASSES": "names.txt"})
    with pytest.raises(InputError, match="own_train names gone, but"):
        check_config(cfg, train=True)


def test_boxes_of_any_format_join_label_images(load, text_format):
    write_texts("train")
    write_texts("val")
    with open("classes.txt", "w") as f:
        f.write("\n".join(["ground", *NAMES]))
    pixels = {"LABELS": f"{SYNTHETIC}/annotations_detectron2/{{}}", "CLASSES": "classes.txt"}
    cfg = load("multitask_lite_topformer_t", pixels | {"BOXES": "texts_{}"})
    # The classes of the boxes are their own: those that are used, sorted.
    assert sorted(NAMES) == cfg.DATASETS.THING_CLASSES
    assert ["ground", *NAMES] == cfg.DATASETS.STUFF_CLASSES
    plain_labels = {r["file_name"]: r for r in DatasetCatalog.get("synthetic_multitask_val")}
    for record in load_records("own_val"):
        assert record["tasks"] == ("sem_seg", "instances") and record["annotations"]
        expected = read_label(plain_labels[record["file_name"]]["sem_seg_file_name"])
        assert (read_label(record["sem_seg_file_name"]) == expected).all()


@pytest.fixture
def parsed(monkeypatch):
    """Paths of the JSONs that are parsed."""
    found, read = [], coco_json.read_json
    monkeypatch.setattr(coco_json, "read_json", lambda path: found.append(path) or read(path))
    return found


@pytest.mark.parametrize("base", ["det_retinanet_lite_topformer_t", "multitask_lite_topformer_t"])
def test_a_run_parses_each_json_once(load, parsed, base):
    """Of registration, checks, training and two evaluations."""
    entry = {"BOXES": "boxes_{}.json"}
    for split in ("train", "val"):
        shutil.copy(f"{SYNTHETIC}/annotations/instances_{split}.json", f"boxes_{split}.json")
    if base.startswith("multitask"):
        shutil.copytree(f"{SYNTHETIC}/annotations_detectron2", "labels")
        with open("classes.txt", "w") as f:
            f.write("\n".join(["ground", *NAMES]))
        entry |= {"LABELS": "labels/{}", "CLASSES": "classes.txt"}
    opts = [*SHORT, "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1"]
    cfg = load(base, entry, *opts)
    setup_run(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert parsed == ["boxes_train.json", "boxes_val.json"]
    os.utime("boxes_val.json", ns=(1, 1))
    assert len(load_records("own_val")) == 4
    assert parsed == ["boxes_train.json", "boxes_val.json", "boxes_val.json"]


def test_records_are_the_callers_own(load, parsed):
    shutil.copy(f"{SYNTHETIC}/annotations/instances_train.json", "boxes_train.json")
    shutil.copy(f"{SYNTHETIC}/annotations/instances_val.json", "boxes_val.json")
    load("det_retinanet_lite_topformer_t", {"BOXES": "boxes_{}.json"})
    first = DatasetCatalog.get("own_val")
    expected = json.dumps(first)
    for record in first:
        record["annotations"][0]["bbox"][0] = -1
        record["annotations"].pop()
        record["width"] = 0
    assert json.dumps(DatasetCatalog.get("own_val")) == expected
    assert json.dumps(first) != expected and len(parsed) == 2


def test_an_image_that_is_added_is_seen(load):
    shutil.copytree(f"{SYNTHETIC}/annotations_detectron2/val", "labels_val")
    shutil.copytree(f"{SYNTHETIC}/images/val", "images_val")
    with open("classes.txt", "w") as f:
        f.write("\n".join(["ground", *NAMES]))
    keys = {"IMAGES": "images_val", "LABELS": "labels_val", "CLASSES": "classes.txt"}
    load("seg_topformer_t", keys)
    assert len(load_records("own_val")) == 4
    for folder in ("images_val", "labels_val"):
        name = sorted(os.listdir(folder))[0]
        shutil.copy(f"{folder}/{name}", f"{folder}/added.png")
    assert len(load_records("own_val")) == 5
