"""A dataset of labels in any format: its records, what is kept of them, and what is told."""

import json
import os

import cv2
import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from tests.data.labelling.writers import drawn, write_image, write_labelme
from tests.helpers import topformer
from topformer_d2.data import formats
from topformer_d2.data.coco_json import corners
from topformer_d2.data.labelling import DatasetProblems, Entry, rendering
from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError


def test_one_file_gives_pixels_and_boxes(photos, register):
    metadata = register(IMAGES=str(photos), LABELS=str(photos), BOXES=str(photos))
    assert metadata.stuff_classes == ["background", "cat", "dog"]
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1}  # as data convert writes
    records = load_records("own")
    assert [os.path.basename(r["file_name"]) for r in records] == [f"{i}.jpg" for i in range(4)]
    last = records[-1]
    assert (last["width"], last["height"], last["tasks"]) == (40, 30, ("sem_seg", "instances"))
    boxes = [(a["category_id"], *corners(a)) for a in last["annotations"]]
    assert boxes == [(0, 2, 3, 12, 13), (1, 8, 3, 30, 23)]
    label = np.zeros((30, 40), np.uint8)
    label[3:13, 2:12] = 1
    label[3:23, 8:30] = 2
    assert (drawn(last) == label).all()


def test_nothing_is_made_twice_and_a_changed_file_is_seen(photos, register, monkeypatch, tmp_path):
    entry = {"IMAGES": str(photos), "LABELS": str(photos)}
    register(**entry)
    before = load_records("own")
    written = []
    write = rendering.write_beside
    monkeypatch.setattr(
        rendering, "write_beside", lambda *args: written.append(args[0]) or write(*args)
    )
    monkeypatch.setattr(formats.labelme, "load_json", lambda *_: pytest.fail("read again"))
    assert load_records("own") == before
    register(**entry)
    assert load_records("own") == before and written == []
    monkeypatch.undo()
    monkeypatch.setattr(
        rendering, "write_beside", lambda *args: written.append(args[0]) or write(*args)
    )
    write_labelme(photos / "2.json", ("dog", 0, 0, 40, 30))
    changed = load_records("own")
    assert written == [changed[2]["sem_seg_file_name"]]
    assert (drawn(changed[2]) == 2).all() and changed[3] == before[3]
    left = os.listdir(tmp_path / "cache" / "labels")
    assert sorted(left) == sorted(os.path.basename(r["sem_seg_file_name"]) for r in changed)
    # Nothing was written among the user's files.
    assert sorted(p.name for p in photos.iterdir()) == sorted(
        f"{i}.{e}" for i in range(4) for e in ("jpg", "json")
    )


def test_two_shares_of_one_folder(photos, register):
    found = []
    for share in ([0, 0.5], [0.5, 1]):
        register(IMAGES=str(photos), BOXES=str(photos), SHARE=share)
        found.append({r["file_name"] for r in load_records("own")})
    assert len(found[0]) == len(found[1]) == 2 and not found[0] & found[1]


def test_a_label_without_a_class_is_told_with_its_files(photos, register):
    entry = {"IMAGES": str(photos), "LABELS": str(photos), "CLASSES": ["background", "cat"]}
    with pytest.raises(InputError, match=r"own.*'dog'.*LABEL_MAP: \{dog: ignore\}"):
        register(**entry)
        load_records("own")
    register(**entry, LABEL_MAP={"dog": "ignore"})
    assert np.unique(drawn(load_records("own")[0])).tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("spoil", "kind", "file", "named"),
    [
        (lambda root: (root / "1.json").write_text("{"), "malformed annotation", "1.json", "JSON"),
        (lambda root: write_image(root / "1.jpg", (41, 30)), "sizes differ", "1.jpg", "41x30"),
        (lambda root: (root / "1.jpg").write_bytes(b""), "unreadable file", "1.jpg", "1.jpg"),
        (lambda root: (root / "1.jpg").unlink(), "listed image missing", "1.json", "'1.jpg'"),
    ],
)
def test_what_is_wrong_with_one_of_many(photos, register, tmp_path, spoil, kind, file, named):
    spoil(photos)
    register(IMAGES=str(photos), LABELS=str(photos))
    if kind == "listed image missing":
        assert len(load_records("own")) == 3
    else:
        with pytest.raises(DatasetProblems, match=named) as told:
            load_records("own")
        assert len(told.value.records) == 3
    report = tmp_path / "report.json"
    words = ["data", "check", "--images", photos, "--labels", photos, "--json", report]
    status = topformer(*words).returncode
    found = json.loads(report.read_text())["datasets"]["folder"]["findings"]
    assert [(f["kind"], os.path.basename(f["file"])) for f in found if f["kind"] == kind] == [
        (kind, file)
    ]
    assert status == (kind != "listed image missing")


def write_masks(root, values, name="{}.png", mode="L"):
    root.mkdir(exist_ok=True)
    for i in range(3):
        write_image(root.parent / "images" / f"{i}.png", (20, 10))
        mask = np.zeros((10, 20), np.int32)
        for j, value in enumerate(values):
            mask[:, j * 4 : j * 4 + 4] = value
        Image.fromarray(mask.astype(np.uint16 if mode == "I;16" else np.uint8)).save(
            root / name.format(i)
        )


@pytest.mark.parametrize(
    ("values", "classes", "key"),
    [
        ((1, 2, 3, 1, 2), ["a", "b", "c"], "LABEL_MAP: {1: a, 2: b, 3: c}"),
        ((0, 15, 190, 0, 0), ["a", "b", "c"], "LABEL_MAP: {0: a, 15: b, 190: c}"),
        ((0, 255, 0, 255, 0), ["a", "b"], "LABEL_MAP: {0: a, 255: b}"),
        ((0, 1, 2, 3, 0), ["a", "b", "c"], "LABEL_MAP: {0: ignore, 1: a, 2: b, 3: c}"),
    ],
)
def test_other_values_bring_the_key_to_add(tmp_path, register, values, classes, key):
    write_masks(tmp_path / "labels", values)
    entry = {"IMAGES": str(tmp_path / "images"), "LABELS": str(tmp_path / "labels")}
    (tmp_path / "classes.txt").write_text("\n".join(classes))
    words = ["data", "check", "--images", entry["IMAGES"], "--labels", entry["LABELS"]]
    result = topformer(*words, "--classes", tmp_path / "classes.txt")
    assert result.returncode == 1 and key in result.stdout
    mapping = key.removeprefix("LABEL_MAP: {").removesuffix("}")
    pairs = dict(pair.split(": ") for pair in mapping.split(", "))
    register(**entry, CLASSES=classes, LABEL_MAP=pairs)
    expected = [255 if pairs.get(str(v)) == "ignore" else v for v in values]
    expected = [
        classes.index(pairs[str(v)]) if pairs.get(str(v)) in classes else e
        for v, e in zip(values, expected, strict=True)
    ]
    assert drawn(load_records("own")[0])[0, ::4].tolist() == expected


def test_values_without_names_are_listed(tmp_path, register):
    write_masks(tmp_path / "labels", (0, 300, 300, 7, 0), mode="I;16")
    entry = {"IMAGES": str(tmp_path / "images"), "LABELS": str(tmp_path / "labels")}
    with pytest.raises(InputError, match=r"0 \(40.0%\), 7 \(20.0%\), 300 .*LABEL_MAP: \{0: name0"):
        register(**entry)
    register(**entry, LABEL_MAP={"0": "road", "7": "ignore", "300": "car"})
    assert MetadataCatalog.get("own").stuff_classes == ["road", "car"]
    assert drawn(load_records("own")[0])[0, ::4].tolist() == [0, 1, 1, 255, 0]


def test_colours_without_a_class_are_told_with_their_number(tmp_path, register):
    write_masks(tmp_path / "labels", (0,))
    for i in range(3):
        colored = np.zeros((10, 20, 3), np.uint8)
        colored[:, :5] = (30, 20, 10)
        colored[0, 19] = (7, 7, 8 if i == 1 else 7)
        colored[0, 19] = colored[0, 0] if i != 1 else colored[0, 19]
        cv2.imwrite(str(tmp_path / "labels" / f"{i}.png"), colored)
    entry = {"IMAGES": str(tmp_path / "images"), "LABELS": str(tmp_path / "labels")}
    keys = {"0 0 0": "road", "10 20 30": "car"}
    register(**entry, LABEL_MAP=keys)
    with pytest.raises(InputError, match=r"1\.png: the colour '8 7 7' .* 1 pixels in 1 files"):
        load_records("own")
    register(**entry, LABEL_MAP=keys, IGNORE=["8 7 7"])
    assert drawn(load_records("own")[1])[0, [0, 10, 19]].tolist() == [1, 0, 255]


def test_a_dataset_is_written_as_plain_files(photos, tmp_path, register):
    output = tmp_path / "plain"
    words = ["data", "convert", "--images", photos, "--labels", photos, "--boxes", photos]
    result = topformer(*words, "--output", output)
    assert result.returncode == 0, result.stderr
    register(IMAGES=str(photos), LABELS=str(photos), BOXES=str(photos))
    before = load_records("own")
    paths = {
        "IMAGES": "images",
        "LABELS": "labels",
        "CLASSES": "classes.txt",
        "BOXES": "boxes.json",
    }
    metadata = register(**{key: str(output / name) for key, name in paths.items()})
    assert metadata.json_file == str(output / "boxes.json")
    after = load_records("own")
    assert metadata.stuff_classes == ["background", "cat", "dog"]
    for old, new in zip(before, after, strict=True):
        assert (drawn(old) == drawn(new)).all()
        assert [corners(a) for a in old["annotations"]] == [corners(a) for a in new["annotations"]]
    assert sorted(os.listdir(output)) == sorted(paths.values())
    again = topformer(*words, "--output", output)
    assert again.returncode == 1 and "--output" in again.stderr and "exists" in again.stderr
    wrong = topformer("data", "convert", "--images", photos, "--output", tmp_path / "o")
    assert wrong.returncode == 1 and "--labels" in wrong.stderr


def test_of_labels_for_images_of_one_name_those_with_its_folder_count(tmp_path, register):
    write_image(tmp_path / "images/train/0.png", (20, 20))
    boxes = [([0, 0, 5, 5], "val/0.png"), ([9, 9, 6, 6], "train\\0.png")]
    content = {
        "images": [{"id": i, "file_name": name} for i, (_, name) in enumerate(boxes)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": box}
            for i, (box, _) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    register(IMAGES=str(tmp_path / "images"), BOXES=str(tmp_path / "boxes.json"), FORMAT="coco")
    (record,) = load_records("own")
    assert [*corners(record["annotations"][0])] == [9, 9, 15, 15]
    problems = MetadataCatalog.get("own").checked_records()[1]
    assert [p.kind for p in problems] == ["listed image missing"] and "val/0" in problems[0].message


def test_a_misspelt_label_of_the_keys_is_told(photos, register):
    entry = {"LABEL_MAP": {"catt": "dog"}, "IGNORE": ["bird"]}
    register(IMAGES=str(photos), LABELS=str(photos), BOXES=str(photos), **entry)
    problems = MetadataCatalog.get("own").checked_records()[1]
    assert [p.kind for p in problems] == ["label never seen"] * 2
    assert "'catt'" in problems[0].message and "'cat'" in problems[0].message
    assert len(load_records("own")) == 4


def test_more_classes_than_a_label_map_holds_are_refused(photos, register):
    write_labelme(photos / "0.json", *((f"n{i}", 0, 0, 5, 5) for i in range(300)))
    register(IMAGES=str(photos), BOXES=str(photos))
    assert len(load_records("own")[0]["annotations"]) == 300
    with pytest.raises(InputError, match=r"303 classes.*255.*LABEL_MAP"):
        register(IMAGES=str(photos), LABELS=str(photos))
        load_records("own")


@pytest.mark.parametrize("key", ["CLASSES", "IGNORE", "LABEL_MAP"])
def test_what_yaml_makes_of_no_is_refused(key):
    value = {False: "road"} if key == "LABEL_MAP" else [False]
    with pytest.raises(InputError, match=rf"own\.{key}.*False.*'no'"):
        Entry.parse("own", {"IMAGES": "a", "LABELS": "b", key: value})
