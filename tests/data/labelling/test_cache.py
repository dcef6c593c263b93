"""What is kept of a dataset: it is made again where anything that it is made of has changed."""

import fcntl
import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from topformer_d2.data.formats import parallel
from topformer_d2.data.formats.parallel import map_in_processes
from topformer_d2.data.labelling import Entry, LabelledFolder
from topformer_d2.errors import InputError


def write_image(path, height=20, width=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


@pytest.fixture
def yolo(tmp_path):
    """Three images with a box each, and the names in a data.yaml above."""
    for i in range(3):
        write_image(tmp_path / f"images/train/{i}.png")
        label = tmp_path / f"labels/train/{i}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data.yaml").write_text("names: [a, b]\ntrain: images/train\n")
    return tmp_path


def dataset(root, labels, images="images/train", tasks=("LABELS", "BOXES"), **keys):
    entry = {"IMAGES": str(root / images), **{task: str(root / labels) for task in tasks}, **keys}
    return LabelledFolder("own", Entry.parse("own", entry), str(root / "cache"))


@pytest.mark.parametrize("labels", ["data.yaml", "labels/train"])
def test_changes_beside_the_named_path_are_seen(yolo, labels):
    own = dataset(yolo, labels)
    assert [r["annotations"][0]["category_id"] for r in own.records()] == [0, 0, 0]
    (yolo / "labels/train/1.txt").write_text("1 .5 .5 .4 .4\n")
    assert [r["annotations"][0]["category_id"] for r in own.records()] == [0, 1, 0]
    (yolo / "data.yaml").write_text("names: [c, d]\ntrain: images/train\n")
    assert own.metadata("instances")["thing_classes"] == ["c", "d"]


def test_a_table_above_the_labels_decides_what_colours_mean(tmp_path):
    write_image(tmp_path / "images/0.png", 2, 2)
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "labels/0.png"), np.array([[[0, 0, 255]] * 2, [[255, 0, 0]] * 2]))
    table = tmp_path / "class_dict.csv"
    found = []
    for road, car in (("255,0,0", "0,0,255"), ("0,0,255", "255,0,0")):
        table.write_text(f"name,r,g,b\nroad,{road}\ncar,{car}\n")
        own = dataset(tmp_path, "labels", "images", ("LABELS",), LABEL_MAP={"road": "street"})
        found.append(cv2.imread(own.records()[0]["sem_seg_file_name"], 0)[:, 0].tolist())
    assert found == [[0, 1], [1, 0]]


def test_an_image_of_another_size_has_another_label_map(yolo):
    own = dataset(yolo, "labels/train")
    own.records()
    write_image(yolo / "images/train/0.png", 30, 50)
    record = own.records()[0]
    label = cv2.imread(record["sem_seg_file_name"], 0)
    assert label.shape == (record["height"], record["width"]) == (30, 50)


@pytest.mark.parametrize("spoil", [os.remove, lambda path: os.truncate(path, 9)])
def test_a_label_map_that_is_lost_or_cut_is_drawn_again(yolo, spoil):
    own = dataset(yolo, "labels/train")
    before = own.records()
    path = Path(before[1]["sem_seg_file_name"])
    content = path.read_bytes()
    spoil(path)
    assert own.records() == before and path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.pop("records"),
        lambda index: index.update(records=5),
        lambda index: index["records"][0].pop("size"),
        lambda index: index["records"][0].update(label="../../0.png"),
        lambda index: index["records"][0].update(boxes=[[1]]),
        lambda index: index.update(problems=[["no kind", "file", "message"]]),
    ],
)
def test_a_damaged_index_is_made_again(yolo, change):
    own = dataset(yolo, "labels/train")
    before = own.records()
    path = yolo / "cache/index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    assert own.records() == before


def test_label_maps_that_another_process_uses_are_left(yolo):
    own = dataset(yolo, "labels/train")
    before = {r["sem_seg_file_name"] for r in own.records()}
    with open(yolo / "cache/.in_use") as other:  # as another process would have it open
        fcntl.flock(other, fcntl.LOCK_SH)
        changed = dataset(yolo, "labels/train", CLASSES=["b", "a"])
        after = {r["sem_seg_file_name"] for r in changed.records()}
        assert not before & after and all(map(os.path.exists, before | after))
    own.records()
    assert len(os.listdir(yolo / "cache/labels")) == 3


def test_several_processes_make_the_same(yolo, monkeypatch):
    own = dataset(yolo, "labels/train", tasks=("LABELS", "BOXES"))
    before = own.records()
    monkeypatch.setattr(parallel, "_CHUNK", 1)
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    run = parallel.map_in_processes
    monkeypatch.setattr(
        "topformer_d2.data.labelling.making.map_in_processes",
        lambda function, items, what, least: run(function, items, what, least=1),
    )
    for path in [yolo / "cache/index.json", *(yolo / "cache/labels").iterdir()]:
        path.unlink()
    assert own.records() == before


def end_itself(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_ends_the_reading(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    with pytest.raises(InputError, match="killed"):
        list(map_in_processes(end_itself, [1, 2], "reading", least=1))


def test_the_names_of_the_classes_are_kept(yolo, monkeypatch):
    own = dataset(yolo, "labels/train")
    before = [own.metadata(task) for task in ("sem_seg", "instances")]
    assert not (yolo / "cache").exists()  # names alone write nothing
    own.records()
    with monkeypatch.context() as patch:
        patch.setattr(LabelledFolder, "labelling", lambda *_: pytest.fail("read again"))
        assert [own.metadata(task) for task in ("sem_seg", "instances")] == before
    path = yolo / "cache/classes.json"
    content = json.loads(path.read_text())
    for damage in ({"names": [1, 2], "colors": []}, {"names": ["x"], "colors": [[1]]}, None):
        path.write_text(json.dumps({**content, "classes": {"instances": damage}}))
        assert own.metadata("instances") == before[1]
    (yolo / "data.yaml").write_text("names: [c, d]\ntrain: images/train\n")
    assert own.metadata("instances")["thing_classes"] == ["c", "d"]
