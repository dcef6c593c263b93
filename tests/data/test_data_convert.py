"""`topformer data convert`: shards, and plain files again."""

import json
import re

import numpy as np
import pytest
from detectron2.utils.file_io import PathManager
from PIL import Image

from tests.helpers import REPOSITORY, photo, topformer, write_class_folders
from topformer_d2.data.folders import register_folder
from topformer_d2.data.images import read_image
from topformer_d2.data.plain_layout import file_names, numbered, write_plain
from topformer_d2.data.shard_writer import write_shards
from topformer_d2.data.shards import read_member


def test_a_shard_has_at_most_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("topformer_d2.data.shard_writer.tqdm", lambda items, **_: items)
    whole = write_shards("synthetic_multitask_train", str(tmp_path / "whole"), 1)
    monkeypatch.setattr("topformer_d2.data.shard_writer._MIB", 40_000)
    write_shards("synthetic_multitask_train", str(tmp_path / "parts"), 1)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "parts").glob("*.tar"))]
    assert len(sizes) >= 5 and max(sizes) <= 40_000
    first = [read_member(f"{whole['IMAGES']}/{i:05d}.png") for i in range(12)]
    assert first == [read_member(f"shard://{tmp_path}/parts/images/{i:05d}.png") for i in range(12)]


def test_a_name_that_a_tar_header_does_not_hold(tmp_path, forget):
    """It stands in a part before the header, which has its first 100 bytes."""
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    for folder in (photos, labels):
        folder.mkdir()
    for stem in ("a" * 99, "b" * 120):
        photo(photos / f"{stem}.png", 20, 30)
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(labels / f"{stem}.png")
    register_folder(
        *("mine", {"IMAGES": str(photos), "LABELS": str(labels), "CLASSES": ["x", "y"]}),
        str(tmp_path / "cache"),
    )
    entry = write_shards("mine", str(tmp_path / "mine"), 1)
    for stem in ("a" * 99, "b" * 120):
        assert read_member(f"{entry['IMAGES']}/{stem}.png") == (photos / f"{stem}.png").read_bytes()
        assert read_member(f"{entry['LABELS']}/{stem}.png")[:4] == b"\x89PNG"


def test_names_with_dots_and_those_that_are_equal_without(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    content = []
    for number, name in enumerate(("a.b.png", "a_b.png", "c.JPG"), start=1):
        photo(images / name, 20, 30, seed=number)
        size = {"width": 30, "height": 20}
        content.append({"id": number, "file_name": name, **size})
    boxes = {"images": content, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    words = ["--images", images, "--boxes", tmp_path / "boxes.json", "--to", "webdataset"]
    result = topformer("data", "convert", *words, "--output", tmp_path / "mine")
    assert result.returncode == 0, result.stderr
    assert f"BOXES: {tmp_path}/mine/boxes.json" in result.stdout
    folder = f"shard://{tmp_path}/mine/images"
    names = PathManager.ls(folder)
    assert names == ["000000_a_b.png", "000001_a_b.png", "000002_c.jpg"]
    original = [read_image(images / name) for name in ("a.b.png", "a_b.png", "c.JPG")]
    for name, expected in zip(names, original, strict=True):
        np.testing.assert_array_equal(read_image(f"{folder}/{name}"), expected)


@pytest.mark.parametrize(
    ("output", "words", "named"),
    [
        ("new", ("--shard-mb", "0"), "--shard-mb is 0"),
        (".", (), r"--output .* exists"),
        ("s3://bucket/w", (), r"--output s3://bucket/w is a remote store's"),
        ("s3://bucket/w", ("--to", "plain"), r"--output s3://bucket/w is a remote store's"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, output, words, named):
    monkeypatch.chdir(tmp_path)
    dataset = ["--dataset", "synthetic_multitask_train", "--to", "webdataset"]
    result = topformer("data", "convert", *dataset, "--output", output, *words)
    assert result.returncode == 1 and re.search(named, result.stderr)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["plain", "webdataset"])
def test_class_folders_are_refused(tmp_path, forget, to):
    write_class_folders(tmp_path / "photos", ("cat", "dog"), 1)
    path = tmp_path / "c.yaml"
    path.write_text(
        f"_BASE_: {REPOSITORY}/configs/cls_topformer_t.yaml\nDATASETS:\n  TRAIN: [mine]\n"
        f"  TEST: [mine]\n  FOLDERS:\n    mine: {{CLASS_FOLDERS: {tmp_path}/photos}}\n"
    )
    words = ["--config-file", path, "--to", to, "--output", tmp_path / "new"]
    result = topformer("data", "convert", *words)
    assert result.returncode == 1 and re.search("'mine' .*CLASS_FOLDERS", result.stderr)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("files", "is_numbered"),
    [
        (["a.png", "b/1.png", "b/2.png"], False),
        (["b.png", "a/1.png"], True),
        (["a/b_1.png", "a_b/1.png"], True),
    ],
)
def test_images_without_a_json_keep_their_order(files, is_numbered):
    records = [{"file_name": f"/root/{file}"} for file in files]
    names = numbered(file_names(records, {"image_root": "/root"}), records)
    assert sorted(names) == names and len({*names}) == len(files)
    assert names[0].startswith("000000_") == is_numbered
    listed = [{**record, "annotations": []} for record in records]  # by the JSON
    flat = [file.replace("/", "_") for file in files]
    assert numbered(flat, listed) == (flat if len({*flat}) == len(flat) else names)


def test_shards_are_written_back_as_plain_files(tmp_path, shards, forget):
    entry, _ = shards
    write_plain("synthetic_multitask_train", str(tmp_path / "direct"))
    register_folder("mine", entry, str(tmp_path / "cache"))
    found = write_plain("mine", str(tmp_path / "back"))
    assert found.keys() == {"IMAGES", "LABELS", "CLASSES", "BOXES"}
    files = [path.relative_to(tmp_path / "direct") for path in (tmp_path / "direct").rglob("*.*")]
    assert len(files) == 26
    for file in files:
        direct, back = (tmp_path / folder / file for folder in ("direct", "back"))
        assert direct.read_bytes() == back.read_bytes(), file


def test_the_size_of_shards_needs_shards(tmp_path):
    words = ["--dataset", "synthetic_multitask_train", "--output", tmp_path / "new"]
    result = topformer("data", "convert", *words, "--shard-mb", "64")
    assert result.returncode == 1 and "--shard-mb is for --to webdataset" in result.stderr
    assert not (tmp_path / "new").exists()
