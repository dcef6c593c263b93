"""Every kind of finding, by a file that triggers it; reports; the quick form before training."""

import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from tests.helpers import REPOSITORY, run_tool
from topformer_d2.data.boxes import clean_boxes, register_boxes
from topformer_d2.data.builtin import register_sem_seg
from topformer_d2.data.categories import Categories
from topformer_d2.data.inspection import (
    SEVERITY,
    inspect_config,
    inspect_datasets,
    spread_evenly,
)
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.synthetic import write_synthetic
from topformer_d2.engine import setup_run
from topformer_d2.errors import InputError

CLASSES = Categories(("road", "sky"), ((1, 2, 3), (4, 5, 6)), (0, 1), 255)
HEIGHT, WIDTH = 40, 50


@pytest.fixture
def forget():
    """Remove what a test has registered."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def write_pairs(folder, count, names=("images", "labels")):
    """Images of noise, and labels of 200 pixels of class 1, 50 ignored and class 0 elsewhere."""
    rng = np.random.default_rng(0)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[:4], label[4] = 1, 255
    for name in names:
        (folder / name).mkdir()
    for i in range(count):
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / names[0] / f"{i}.png")
        Image.fromarray(label).save(folder / names[1] / f"{i}.png")


def box(bbox, category=0, crowd=0):
    return {
        "bbox": bbox,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "iscrowd": crowd,
    }


@pytest.fixture
def both(tmp_path, forget):
    """The records of a dataset "both" with pixel labels and boxes; it has nothing to find."""
    write_pairs(tmp_path, 3)
    records = [
        {
            "file_name": str(tmp_path / f"images/{i}.png"),
            "sem_seg_file_name": str(tmp_path / f"labels/{i}.png"),
            "height": HEIGHT,
            "width": WIDTH,
            "annotations": [
                box([1, 2, 9, 9]),
                box([-0.5, 30, 50.9, 10.4], 1),
                box([0, 0, 9, 9], 1, 1),
            ],
        }
        for i in range(3)
    ]
    DatasetCatalog.register("both", lambda: records)
    MetadataCatalog.get("both").set(
        image_root=str(tmp_path / "images"),
        sem_seg_root=str(tmp_path / "labels"),
        stuff_classes=["road", "sky"],
        thing_classes=["cat", "dog"],
    )
    return records


def save_few_bits(path):
    """A PNG of 4 bits a pixel by hand: Pillow writes none, and reads its ids times 17."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 4, 0, 0, 0, 0)
    rows = (b"\0" + b"\x01" * -(-WIDTH // 2)) * HEIGHT
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def edit_label(record, change):
    label = np.array(Image.open(record["sem_seg_file_name"]))
    change(label).save(record["sem_seg_file_name"])


def with_value(label, value):
    label[3, 7] = value
    return Image.fromarray(label)


def cut(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def save_palette(path):
    image = Image.open(path).convert("P")
    image.save(path)


def save_deep(path, channels):
    cv2.imwrite(path, np.full((HEIGHT, WIDTH, channels), 3000, np.uint16))


def save_turned(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(path)
    image.load()
    image.save(path, exif=exif)


def set_boxes(record, *boxes):
    record["annotations"] += boxes


IMAGE, LABEL = "file_name", "sem_seg_file_name"
# Name: (kind, what spoils a record, the record's file that is named or "", words of the message).
CASES = {
    "no label": ("missing file", lambda r: os.remove(r[LABEL]), LABEL, "does not exist"),
    "no label named": ("missing file", lambda r: r.pop(LABEL), IMAGE, "has no label file"),
    "cut image": ("unreadable file", lambda r: cut(r[IMAGE]), IMAGE, "cannot be read: "),
    "cut label": ("unreadable file", lambda r: cut(r[LABEL]), LABEL, "cannot be read: "),
    "no picture": (
        "unreadable file",
        lambda r: Path(r[IMAGE]).write_text("<html>not found</html>"),
        IMAGE,
        "cannot identify image file",
    ),
    "16-bit grey": (
        "16-bit grey image",
        lambda r: save_deep(r[IMAGE], 1),
        IMAGE,
        "what is above 255 becomes white",
    ),
    "16-bit colour": (
        "16-bit colour image",
        lambda r: save_deep(r[IMAGE], 3),
        IMAGE,
        "the upper 8 are used",
    ),
    "palette image": (
        "palette image",
        lambda r: save_palette(r[IMAGE]),
        IMAGE,
        "has a palette",
    ),
    "upside down": (
        "EXIF rotation",
        lambda r: save_turned(r[IMAGE], 3),
        IMAGE,
        "EXIF orientation 3",
    ),
    "16-bit label": ("16-bit label", lambda r: save_deep(r[LABEL], 1), LABEL, "mode 'I"),
    "palette label": ("palette label", lambda r: save_palette(r[LABEL]), LABEL, "mode 'P'"),
    "colour label": (
        "colour label",
        lambda r: edit_label(r, lambda label: Image.fromarray(label).convert("RGB")),
        LABEL,
        "mode 'RGB'",
    ),
    "smaller label": (
        "sizes differ",
        lambda r: edit_label(r, lambda label: Image.fromarray(label[:, 1:])),
        LABEL,
        r"\(40, 50\) \(height, width\) and its label .*\(40, 49\)",
    ),
    "another recorded size": (
        "sizes differ",
        lambda r: r.update(height=HEIGHT + 1),
        IMAGE,
        r"\(40, 50\).*for an image of \(41, 50\)",
    ),
    "label 2": (
        "label out of range",
        lambda r: edit_label(r, lambda label: with_value(label, 2)),
        LABEL,
        "label 2 is out of range; the 2 classes are 0 to 1, and 255 is ignored",
    ),
    "three numbers": ("malformed box", lambda r: set_boxes(r, box([1, 2, 3])), IMAGE, "malformed"),
    "4-bit label": ("1 to 4-bit label", lambda r: save_few_bits(r[LABEL]), LABEL, "and 4 bits"),
    "NaN": ("box of no area", lambda r: set_boxes(r, box([float("nan"), 2, 3, 3])), IMAGE, "nan"),
    "class 2": (
        "class out of range",
        lambda r: set_boxes(r, box([1, 2, 3, 3], 2), box([1, 2, 3, 3], -1)),
        IMAGE,
        r"\[1, 2, 3, 3\] of class 2 in 50x40, and 1 more",
    ),
    "flat": ("box of no area", lambda r: set_boxes(r, box([1, 2, 0, 3])), IMAGE, "no area"),
    "outside": (
        "box outside the image",
        lambda r: set_boxes(r, box([50, 2, 9, 9])),
        IMAGE,
        r"outside the image: \[50, 2, 9, 9\]",
    ),
    "half outside": (
        "box reaches out",
        lambda r: set_boxes(r, box([40, 2, 12, 9])),
        IMAGE,
        "reaches out",
    ),
    "label alone": (
        "label without image",
        lambda r: Image.open(r[LABEL]).save(r[LABEL].replace("1.png", "7.png")),
        "labels/7.png",
        "has no image in",
    ),
    "image alone": (
        "image without label",
        lambda r: Image.open(r[IMAGE]).save(r[IMAGE].replace("1.png", "7.png")),
        "images/7.png",
        "has no label in a dataset that is checked here",
    ),
}


def test_nothing_is_found_in_good_files(both):
    report = inspect_datasets(["both"])
    assert report.all_findings == []
    dataset = report.datasets[0]
    assert dataset.pixels == [("road", 3 * 1750), ("sky", 3 * 200)]
    assert dataset.tally.pixels[255] == 3 * 50
    assert dataset.objects == [("cat", 3), ("dog", 3)]


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_finding(both, tmp_path, case):
    kind, spoil, file, words = CASES[case]
    record = both[1]
    path = record.get(file) or str(tmp_path / file)
    spoil(record)
    report = inspect_datasets(["both"])
    assert [(f.kind, f.file) for f in report.all_findings] == [(kind, path)]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(report.all_findings[0].message)
    assert len(report.errors) == (SEVERITY[kind] == "error")


def test_every_kind_has_a_case():
    elsewhere = {"config", "dataset", "class never seen"}
    assert {kind for kind, *_ in CASES.values()} | elsewhere == SEVERITY.keys()
    text = (REPOSITORY / "docs/checking_data.md").read_text()
    for kind, severity in SEVERITY.items():
        assert f"\n| {kind} | {severity} |" in text


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("alone")])
def test_errors_are_what_stops_training(both, case):
    kind, spoil, *_ = CASES[case]
    spoil(both[1])
    mapper = TaskMapper(
        is_train=True,
        tasks=("sem_seg", "instances"),
        augmentations=[],
        image_format="RGB",
        num_labels=2,
    )
    # These two go through and are wrong: a white image, and an index past the end of the classes.
    stops = SEVERITY[kind] == "error" and kind not in ("16-bit grey image", "class out of range")
    try:
        mapper(clean_boxes([both[1]])[0])
    except InputError:
        assert stops
    else:
        assert not stops


def test_an_image_turned_by_90_degrees_differs_in_size(both):
    save_turned(both[0]["file_name"], 6)
    kinds = [finding.kind for finding in inspect_datasets(["both"]).all_findings]
    assert kinds == ["EXIF rotation", "sizes differ", "sizes differ"]  # recorded, and its label's


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
        " (1 more among 32 samples); python tools/check_dataset.py --config-file my.yaml shows all"
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


def test_the_tool_reports_and_exits_with_1(tmp_path):
    write_synthetic(str(tmp_path), 3, 2, size=(64, 80))
    label = tmp_path / "synthetic/annotations_detectron2/val/00004.png"
    cv2.imwrite(str(label), np.full((64, 80), 77, np.uint8))
    result = run_tool(
        *("check_dataset.py", "--config-file", "configs/seg_topformer_t_synthetic.yaml"),
        *("--json", tmp_path / "new/report.json", "DATASETS.TRAIN", "()"),
        DETECTRON2_DATASETS=str(tmp_path),
    )
    assert result.returncode == 1, result.stderr
    assert f"error: {label}: label 77 is out of range; the 6 classes are 0 to 5" in result.stdout
    report = json.loads((tmp_path / "new/report.json").read_text())
    assert report["errors"] == 1 and list(report["datasets"]) == ["synthetic_sem_seg_val"]
    assert "synthetic_sem_seg_val: 100%" in result.stderr and "Traceback" not in result.stderr


def test_warnings_alone_exit_with_0(tmp_path):
    write_synthetic(str(tmp_path), 1, 1, size=(64, 80))
    names = ["synthetic_sem_seg_val", "synthetic_boxes_val"]
    result = run_tool("check_dataset.py", *names, DETECTRON2_DATASETS=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "warning: synthetic_boxes_val has no object of" in result.stdout
    assert "in all: 0 errors, " in result.stdout


def test_ctrl_c_ends_the_tool_with_130(tmp_path):
    write_synthetic(str(tmp_path), 1, 1, size=(1000, 1000))
    for folder in ("images/train", "annotations_detectron2/train"):
        for i in range(1, 3000):
            (tmp_path / "synthetic" / folder / f"{i:05d}.png").symlink_to("00000.png")
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tools/check_dataset.py"), "synthetic_sem_seg_train"],
        stderr=subprocess.PIPE,
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
        start_new_session=True,
    )
    text = b""
    while b"image/s]" not in text:
        text += os.read(process.stderr.fileno(), 100)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes
    text += process.stderr.read()
    assert process.wait(timeout=30) == 130
    assert text.decode().endswith("interrupted\n") and b"Traceback" not in text
