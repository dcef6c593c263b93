"""The formats that DATASETS.FOLDERS takes, and what a new one needs."""

import dataclasses
import json
import math
import os
import shutil

import pytest
from detectron2.data import DatasetCatalog

from tests.data import text_boxes
from topformer_d2 import get_config
from topformer_d2.config import load_config
from topformer_d2.data import check_config, coco_json, dataset_paths
from topformer_d2.data.formats import FORMATS, formats_of, register
from topformer_d2.data.registered import load_records
from topformer_d2.engine import Trainer, setup_run
from topformer_d2.errors import InputError

pytestmark = pytest.mark.usefixtures("forget")
SYNTHETIC = os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic")
NAMES = ["disc", "square", "triangle", "cross", "ring"]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ("IMAGES LABELS CLASSES", ["label_images"]),
        ("BOXES IMAGES", ["coco"]),
        ("CLASSES BOXES LABELS IMAGES", ["label_images", "coco"]),
        ("IMAGES", []),
        ("BOXES", []),
        ("IMAGES BOXES CLASSES", []),
    ],
)
def test_the_keys_say_the_format(keys, names):
    assert [each.name for each in formats_of(keys.split())] == names


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "coco"}, "'coco' is registered"),
        ({"keys": (), "class_keys": ()}, "has no keys"),
        ({"class_keys": ("NAMES", "CLASSES")}, r"\['CLASSES'\]"),
        ({"keys": ("BOXES",), "class_keys": ()}, "'coco', 'text_boxes'"),
        # The joined keys of the others.
        (
            {"keys": ("CLASSES", "BOXES", "LABELS"), "class_keys": ()},
            "'text_boxes', 'label_images with coco'",
        ),
    ],
)
def test_a_format_whose_keys_are_ambiguous_is_refused(changes, named):
    before = dict(FORMATS)
    with pytest.raises(ValueError, match=named):
        register(dataclasses.replace(text_boxes.FORMAT, **changes))
    assert before == FORMATS


def test_formats_that_share_a_key_are_not_joined(monkeypatch):
    shared = dataclasses.replace(
        text_boxes.FORMAT, keys=("TEXTS", "CLASSES"), class_keys=("CLASSES",)
    )
    monkeypatch.setitem(FORMATS, shared.name, shared)
    assert formats_of(["IMAGES", "TEXTS", "CLASSES"]) == (shared,)
    assert formats_of(["IMAGES", "LABELS", "TEXTS", "CLASSES"]) == ()


def write_texts(split):
    with open(os.path.join(SYNTHETIC, f"annotations/instances_{split}.json")) as f:
        content = json.load(f)
    names = {c["id"]: c["name"] for c in content["categories"]}
    os.mkdir(f"texts_{split}")
    for image in content["images"]:
        with open(f"texts_{split}/{os.path.splitext(image['file_name'])[0]}.txt", "w") as f:
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


def test_one_module_makes_a_third_format(load, monkeypatch):
    monkeypatch.setitem(FORMATS, "text_boxes", text_boxes.FORMAT)
    write_texts("train")
    write_texts("val")
    with open("names.txt", "w") as f:
        f.write("\n".join(NAMES))
    cfg = load(
        "det_retinanet_lite_topformer_t", {"TEXTS": "texts_{}", "NAMES": "names.txt"}, *SHORT
    )
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 5
    assert set(dataset_paths("own_val")) == {f"{SYNTHETIC}/images/val", "texts_val", "names.txt"}
    coco = DatasetCatalog.get("synthetic_boxes_val")
    own = load_records("own_val")
    assert [r["annotations"] for r in own] == [
        [{key: a[key] for key in ("bbox", "bbox_mode", "category_id")} for a in r["annotations"]]
        for r in coco
    ]
    setup_run(cfg)
    trainer = Trainer(cfg)
    trainer.train()
    assert math.isfinite(trainer.storage.history("total_loss").latest())
    assert 0 <= trainer._last_eval_results["bbox"]["AP"] <= 100
    os.remove(f"texts_val/{own[0]['image_id']}.txt")
    assert len(load_records("own_val")) == 3
    # Its keys are known to the checks of entries, and its files to those of datasets.
    with pytest.raises(InputError, match=r"own_train\.TEXT is unknown \(did you mean 'TEXTS'"):
        load("det_retinanet_lite_topformer_t", {"TEXT": "a", "NAMES": "names.txt"})
    cfg = load("det_retinanet_lite_topformer_t", {"TEXTS": "gone", "NAMES": "names.txt"})
    with pytest.raises(InputError, match="own_train names gone, but"):
        check_config(cfg, train=True)


def test_a_third_format_of_boxes_joins_label_images(load, monkeypatch):
    monkeypatch.setitem(FORMATS, "text_boxes", text_boxes.FORMAT)
    write_texts("train")
    write_texts("val")
    for name, lines in (("names.txt", NAMES), ("classes.txt", ["ground", *NAMES])):
        with open(name, "w") as f:
            f.write("\n".join(lines))
    pixels = {"LABELS": f"{SYNTHETIC}/annotations_detectron2/{{}}", "CLASSES": "classes.txt"}
    boxes = {"TEXTS": "texts_{}", "NAMES": "names.txt"}
    load("multitask_lite_topformer_t", pixels | boxes)
    for record in load_records("own_val"):
        assert record["tasks"] == ("sem_seg", "instances") and record["annotations"]
        stem = os.path.splitext(os.path.basename(record["sem_seg_file_name"]))[0]
        assert stem == os.path.splitext(os.path.basename(record["file_name"]))[0]


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
