"""The user's own datasets, named by a config alone."""

import json
import logging
import os
import re

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.utils.visualizer import Visualizer

from tests.helpers import save_untrained
from topformer_d2 import Predictor, get_config
from topformer_d2.config import load_config
from topformer_d2.data import build_train_loader, check_config
from topformer_d2.data.folders import read_classes, register_folders
from topformer_d2.errors import InputError
from topformer_d2.inference.model_info import ModelInfo
from topformer_d2.visualization import Painter

SYNTHETIC = os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic")
CLASSES = "ground 90 90 90\ndisc 230 80 60\nsquare 0 0 255\ntall cross 1 2 3\nring 9 9 9\n4 6 8 10"
NAMES = ["ground", "disc", "square", "tall cross", "ring", "4"]
BASES = {
    "pixels": "seg_topformer_t",
    "boxes": "det_retinanet_lite_topformer_t",
    "both": "multitask_lite_topformer_t",
}


def forget():
    for name in [name for name in DatasetCatalog.list() if name.startswith("own_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(autouse=True)
def forget_afterwards():
    """Registered names live as long as the process."""
    yield
    forget()


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """A config over the synthetic files as a user would write it; paths are relative."""
    (tmp_path / "files").symlink_to(SYNTHETIC)
    (tmp_path / "classes.txt").write_text(CLASSES)
    monkeypatch.chdir(tmp_path)

    def write(task="pixels", **changes):
        folders = {}
        for split in ("train", "val"):
            entry = {"IMAGES": f"files/images/{split}"}
            if task in ("pixels", "both"):
                entry["LABELS"] = f"files/annotations_detectron2/{split}"
                entry["CLASSES"] = "classes.txt"
            if task in ("boxes", "both"):
                entry["BOXES"] = f"files/annotations/instances_{split}.json"
            folders[f"own_{split}"] = entry
        folders["own_train"] |= changes
        text = get_config(BASES[task]).dump()
        text = text.replace("FOLDERS: {}", f"FOLDERS: {json.dumps(folders)}")
        assert "own_train" in text
        (tmp_path / "own.yaml").write_text(text)
        return str(tmp_path / "own.yaml")

    return write


OWN = ["DATASETS.TRAIN", "('own_train',)", "DATASETS.TEST", "('own_val',)", "MODEL.DEVICE", "cpu"]
SMALL = ["INPUT.CROP.SIZE", "[64, 64]", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]


@pytest.mark.parametrize("task", BASES)
def test_a_config_alone_brings_files_names_and_counts(config_file, task):
    cfg = load_config(config_file(task), [*OWN, *SMALL, "SEED", "1"])
    metadata = MetadataCatalog.get("own_val")
    types = {"pixels": "sem_seg", "boxes": "coco", "both": "coco"}
    assert metadata.evaluator_type == types[task]
    if task != "boxes":
        assert metadata.stuff_classes == NAMES and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 6
        assert metadata.stuff_colors[:2] == [[90, 90, 90], [230, 80, 60]]
        assert metadata.ignore_label == 255
    if task != "pixels":
        assert metadata.thing_classes == ["disc", "square", "triangle", "cross", "ring"]
        assert cfg.MODEL.RETINANET.NUM_CLASSES == 5
    check_config(cfg, train=True)
    for sample in next(iter(build_train_loader(cfg))):
        assert sample["file_name"].startswith("files/images/train/")
        assert ("sem_seg" in sample, "instances" in sample) == (task != "boxes", task != "pixels")
    register_folders(cfg)  # a second time is harmless
    assert len(DatasetCatalog.get("own_val")) == 4


def test_the_kept_config_does_the_same(config_file, tmp_path):
    cfg = load_config(config_file(), OWN)
    (tmp_path / "kept.yaml").write_text(cfg.dump())
    again = load_config(str(tmp_path / "kept.yaml"))
    assert again.dump() == cfg.dump()
    elsewhere = ["DATASETS.FOLDERS.own_val.IMAGES", "elsewhere"]
    cfg = load_config(str(tmp_path / "kept.yaml"), elsewhere)
    assert MetadataCatalog.get("own_val").image_root == "elsewhere"
    with pytest.raises(InputError, match=r"own_val names elsewhere, but .*elsewhere is missing"):
        check_config(cfg, train=False)


def test_the_config_loaded_last_decides(config_file, tmp_path, caplog):
    """As in a notebook: a path is corrected, and a second model has datasets of the same names."""
    load_config(config_file(CLASSES="clases.txt"), [*OWN, *SMALL])
    caplog.clear()
    with caplog.at_level(logging.INFO, "topformer_d2"):
        right = load_config(config_file(), [*OWN, *SMALL])
    assert "'own_train' has other files than before" in caplog.text
    assert right.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 6
    weights = save_untrained(right, tmp_path / "m.safetensors")
    predictor = Predictor(right, weights)
    (tmp_path / "two.txt").write_text("one\ntwo\nthree\nfour\nfive\nsix\nseven")
    second = config_file(CLASSES="two.txt")
    text = (tmp_path / second).read_text().replace("CLASSES: classes.txt", "CLASSES: two.txt")
    (tmp_path / second).write_text(text.replace('"CLASSES": "classes.txt"', '"CLASSES": "two.txt"'))
    assert load_config(second, OWN).MODEL.SEM_SEG_HEAD.NUM_CLASSES == 7
    assert MetadataCatalog.get("own_val").stuff_classes[0] == "one"
    assert list(predictor.info.pixels.names) == NAMES  # an open one keeps them
    build_train_loader(right)  # and the first config is still its own
    assert MetadataCatalog.get("own_val").stuff_classes == NAMES


def test_inference_needs_no_data(config_file, tmp_path):
    cfg = load_config(config_file(), [*OWN, "INPUT.MIN_SIZE_TEST", "64"])
    weights = save_untrained(cfg, tmp_path / "m.safetensors")
    text = cfg.dump().replace("files/", "gone/").replace("classes.txt", "gone.txt")
    (tmp_path / "kept.yaml").write_text(text)
    forget()
    predictor = Predictor(str(tmp_path / "kept.yaml"), weights)
    image = cv2.imread(os.path.join(SYNTHETIC, "images/val/00012.png"))
    assert predictor(image).label.shape == image.shape[:2]


@pytest.mark.parametrize("task", BASES)
def test_names_where_the_test_datasets_are_left_out(config_file, task):
    path = config_file(task)
    for train in ("('own_train',)", "()"):
        forget()
        cfg = load_config(path, ["DATASETS.TRAIN", train, "DATASETS.TEST", "()"])
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CLASSES = 6, 5
        info = ModelInfo.from_config(cfg)
        assert list(info.pixels.names) == ([] if task == "boxes" else NAMES)
        assert ("disc" in info.objects.names) == (task != "pixels")


def test_names_of_the_first_dataset_that_has_as_many(config_file):
    load_config(config_file(CLASSES="gone.txt"), OWN)
    cfg = load_config(config_file(CLASSES="gone.txt"), [*OWN, "DATASETS.TEST", "('own_train',)"])
    cfg.DATASETS.TRAIN = ("own_val",)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 6
    assert list(ModelInfo.from_config(cfg).pixels.names) == NAMES


def names_of(cfg, task):
    """Of the pixels' and of the objects' classes, those that the task has."""
    painter = Painter(cfg, "own_train")
    stuff, things = list(painter.info.pixels.names), list(painter.info.objects.names)
    return {"pixels": [stuff], "boxes": [things], "both": [stuff, things]}[task]


@pytest.mark.parametrize("task", BASES)
def test_names_without_the_images(config_file, tmp_path, task, caplog):
    missing = {"IMAGES": "gone"} | ({} if task == "boxes" else {"LABELS": "gone"})
    cfg = load_config(config_file(task, **missing), OWN)
    names = names_of(cfg, task)
    expected = {"pixels": ["disc"], "boxes": ["square"], "both": ["disc", "square"]}
    assert [of_one[1] for of_one in names] == expected[task]
    # With the file of the classes gone as well, the kept config still has their names.
    (tmp_path / "kept.yaml").write_text(cfg.dump().replace("instances_", "gone_"))
    (tmp_path / "classes.txt").unlink()
    forget()
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        cfg = load_config(str(tmp_path / "kept.yaml"))
    assert "is missing" not in caplog.text
    assert names_of(cfg, task) == names
    with pytest.raises(InputError, match=r"own_train names gone, but"):
        check_config(cfg, train=True)


def test_detectron2s_predictor_and_visualizer_know_them(config_file, monkeypatch):
    cfg = load_config(config_file(), [*OWN, "INPUT.MIN_SIZE_TEST", "64"])
    predictor = DefaultPredictor(cfg)
    image = cv2.imread(os.path.join(SYNTHETIC, "images/val/00012.png"))
    label = predictor(image)["sem_seg"].argmax(0)
    assert predictor.metadata.name == "own_val" and label.shape == (64, 80)
    written = []
    monkeypatch.setattr(
        Visualizer, "draw_binary_mask", lambda self, mask, color, text, **_: written.append(text)
    )
    Visualizer(image, predictor.metadata).draw_sem_seg(torch.full((64, 80), 3))
    assert written == ["tall cross"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"IMAGES": "http://a"}, "own_train.IMAGES is http://a, a web address"),
        ({"IMAGE": "a"}, r"own_train\.IMAGE is unknown \(did you mean 'IMAGES'\?\)"),
        ({"BOXES": 3}, r"own_train\.BOXES is 3; it takes a path"),
        ({"IMAGES": 3}, r"own_train\.IMAGES is 3; it takes a path"),
        ({"CLASSES": ""}, r"own_train\.CLASSES is ''; it takes a path"),
    ],
)
def test_wrong_entries_name_the_key(config_file, changes, message):
    with pytest.raises(InputError, match=message):
        load_config(config_file(**changes), OWN)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "own is 3; it takes"),
        ("{}", "own has no key; it takes"),
        *(
            (str(dict.fromkeys(keys, "x")), f"own has {', '.join(keys)}; it takes")
            for keys in (
                ["IMAGES"],
                ["LABELS", "CLASSES"],
                ["BOXES", "CLASSES", "LABELS"],
            )
        ),
    ],
)
def test_what_is_no_entry_is_refused(tmp_path, value, message):
    message = re.escape(f"{message} IMAGES with LABELS")
    (tmp_path / "wrong.yaml").write_text(f"DATASETS: {{TRAIN: [own], FOLDERS: {{own: {value}}}}}")
    with pytest.raises(InputError, match=message):
        load_config(str(tmp_path / "wrong.yaml"))


def test_the_name_of_another_dataset_is_refused(config_file, tmp_path):
    text = (tmp_path / config_file()).read_text().replace("own_val", "synthetic_sem_seg_val")
    (tmp_path / "clash.yaml").write_text(text)
    with pytest.raises(InputError, match="'synthetic_sem_seg_val' is registered already"):
        load_config("clash.yaml", [o.replace("own_val", "synthetic_sem_seg_val") for o in OWN])
    assert len(DatasetCatalog.get("synthetic_sem_seg_val")) == 4


def test_classes_that_differ_between_the_splits(config_file, tmp_path):
    (tmp_path / "other.txt").write_text(CLASSES.replace("ring", "wheel"))
    cfg = load_config(config_file(CLASSES="other.txt"), OWN)
    with pytest.raises(InputError, match=r"'own_val' has the classes .*'ring'.*'wheel'"):
        check_config(cfg, train=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb", "line 2: the line has no name"),
        (b"a\nb\na\n", "line 3: 'a' stands there twice"),
        (b"a 1 2 3\nb", "1 of 2 classes have a colour"),
        (b"a 1 2 300", r"line 1: the colour \(1, 2, 300\)"),
        (b"\n \n", "is empty"),
        (b"caf\xe9", "is not UTF-8 text"),
        (b"# names\na\nb", "line 1 begins with '#'"),
        (b"a\nb\x07c", r"line 2: .*'b\\x07c' has the character '\\x07'"),
        (b"a\nb\xe2\x80\xa8c", "line 2: .*has the character '.u2028'"),
        (b"a\n" + b"b" * 500, "line 2: .*500 characters"),
        (b"a\n" + b"1" * 5000, "line 2: 5000 characters"),
        (b"a\n" * (1 << 20), "is larger than"),
        (b"a:1,2,3::\nb:1,2,300::", r"line 2: the colour \(1, 2, 300\)"),
        (b"# label:color_rgb:parts:actions\na:1,2,3::\nb:::", "1 of 2 classes have a colour"),
    ],
)
def test_a_wrong_classes_file_names_the_line(tmp_path, content, message):
    (tmp_path / "c.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"c\.txt.*{message}"):
        read_classes(str(tmp_path / "c.txt"))


def test_classes_as_editors_write_them(tmp_path):
    (tmp_path / "c.txt").write_bytes("\ufeffcafé\r\ntraffic light 2\r\n\r\n".encode())
    classes = read_classes(str(tmp_path / "c.txt"), ignore_label=9)
    assert classes.names == ("café", "traffic light 2") and classes.colors == ()
    assert (classes.source_ids, classes.ignore_label) == ((0, 1), 9)


def test_the_labelmap_of_cvat(tmp_path):
    header = "# label:color_rgb:parts:actions\n"
    (tmp_path / "c.txt").write_text(f"{header}background:0,0,0::\ntraffic light:9,8,255:a,b:\n")
    classes = read_classes(str(tmp_path / "c.txt"))
    assert classes.names == ("background", "traffic light")
    assert classes.colors == ((0, 0, 0), (9, 8, 255)) and classes.source_ids == (0, 1)
    (tmp_path / "c.txt").write_text("a:::\nb:::\n")
    assert read_classes(str(tmp_path / "c.txt")).names == ("a", "b")
    (tmp_path / "c.txt").write_text("ratio 1:2\nb\n")  # a colon in a name
    assert read_classes(str(tmp_path / "c.txt")).names == ("ratio 1:2", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("{}", "is not a COCO JSON"), ('{"images": []}', "'images' is empty")],
)
def test_a_wrong_json_is_named(config_file, tmp_path, content, message):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(InputError, match=rf"boxes\.json.*{message}"):
        load_config(config_file("boxes", BOXES="boxes.json"), OWN)


def test_pairs_and_the_ignored_label(config_file):
    cfg = load_config(config_file(), [*OWN, *SMALL])
    for record in DatasetCatalog.get("own_train"):
        stems = [os.path.splitext(os.path.basename(file))[0] for file in record.values()]
        assert stems[0] == stems[1]
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 5
    check_config(cfg, train=True)
    assert MetadataCatalog.get("own_train").ignore_label == 5
