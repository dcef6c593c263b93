"""A dataset in tar files trains as the loose files do; damaged ones are named."""

import functools
import json
import os
import re
import tarfile

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from PIL import Image

from tests.helpers import REPOSITORY, photo, topformer, write_class_folders
from topformer_d2.config import load_config
from topformer_d2.data import build_test_loader, build_train_loader, shard_files
from topformer_d2.data.folders import register_folder
from topformer_d2.data.images import read_image
from topformer_d2.data.plain_layout import file_names, numbered, write_plain
from topformer_d2.data.registered import check_dataset_present
from topformer_d2.data.shard_writer import write_shards
from topformer_d2.data.shards import read_index, read_member
from topformer_d2.errors import InputError

JOINT = REPOSITORY / "configs/multitask_lite_topformer_t_synthetic.yaml"


@pytest.fixture
def shards(tmp_path):
    """The entry of the synthetic training images and the paths of their shards."""
    entry = write_shards("synthetic_multitask_train", str(tmp_path / "mine"), 1)
    return entry, sorted((tmp_path / "mine").glob("*.tar"))


def batches(config, workers=0):
    """Some batches for training, and all images for a test, with augmentation that mixes."""
    opts = ["MODEL.DEVICE", "cpu", "INPUT.CROP.SIZE", "[64, 64]", "SOLVER.IMS_PER_BATCH", "4"]
    opts += ["DATALOADER.NUM_WORKERS", str(workers), "INPUT.MOSAIC.PROB", "0.5", "SEED", "3"]
    cfg = load_config(config, opts)
    loader = build_train_loader(cfg)
    loader.start_iter = 2
    stream = iter(loader)
    trained = [sample for _ in range(4) for sample in next(stream)]
    tested = [sample for batch in build_test_loader(cfg, cfg.DATASETS.TEST[0]) for sample in batch]
    return trained, tested


def config(path, train, folders=""):
    path.write_text(f"_BASE_: {JOINT}\nDATASETS:\n  TRAIN: [{train}]\n  TEST: [{train}]\n{folders}")
    return path


@pytest.fixture
def forgotten():
    """The dataset `mine` is registered within a test alone."""
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        if "mine" in catalog.list():
            catalog.remove("mine")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_samples_are_those_of_the_loose_files(tmp_path, shards, forgotten, workers):
    entry, _ = shards
    folders = f"  FOLDERS:\n    mine: {json.dumps(entry)}\n"
    loose_config = config(tmp_path / "loose.yaml", "synthetic_multitask_train")
    packed_config = config(tmp_path / "packed.yaml", "mine", folders)
    for loose, packed in zip(batches(loose_config), batches(packed_config, workers), strict=True):
        assert len(loose) == len(packed) >= 12
        for one, other in zip(loose, packed, strict=True):
            assert torch.equal(one["image"], other["image"])
            assert os.path.basename(one["file_name"]) == os.path.basename(other["file_name"])
            if "sem_seg" in one:
                assert torch.equal(one["sem_seg"], other["sem_seg"])
                boxes = [s["instances"].gt_boxes.tensor for s in (one, other)]
                assert torch.equal(*boxes)
                assert torch.equal(*[s["instances"].gt_classes for s in (one, other)])


def test_a_shard_has_at_most_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("topformer_d2.data.shard_writer.tqdm", lambda items, **_: items)
    whole = write_shards("synthetic_multitask_train", str(tmp_path / "whole"), 1)
    monkeypatch.setattr("topformer_d2.data.shard_writer._MIB", 40_000)
    write_shards("synthetic_multitask_train", str(tmp_path / "parts"), 1)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "parts").glob("*.tar"))]
    assert len(sizes) >= 5 and max(sizes) <= 40_000
    first = [read_member(f"{whole['IMAGES']}/{i:05d}.png") for i in range(12)]
    assert first == [read_member(f"shard://{tmp_path}/parts/images/{i:05d}.png") for i in range(12)]


def test_a_tar_file_is_webdatasets(shards):
    """Its samples are files whose names are equal up to the first dot, and lie together."""
    entry, (path,) = shards
    with tarfile.open(path) as tar:
        names = tar.getnames()
        boxes = json.load(tar.extractfile("00003.json"))["boxes"]
        image = tar.extractfile("00003.png").read()
    stems = [name.partition(".")[0] for name in names]
    assert stems == sorted(stems) and len(names) == 36
    assert {name.partition(".")[2] for name in names} == {"png", "label.png", "json"}
    assert image == read_member(f"{entry['IMAGES']}/00003.png")
    record = DatasetCatalog.get("synthetic_multitask_train")[3]
    classes = MetadataCatalog.get("synthetic_multitask_train").thing_classes
    assert [box["category"] for box in boxes] == [
        classes[a["category_id"]] for a in record["annotations"]
    ]
    assert [box["bbox"] for box in boxes] == [a["bbox"] for a in record["annotations"]]


def test_webdataset_reads_it(shards):
    webdataset = pytest.importorskip("webdataset")
    _, (path,) = shards
    found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [f"{i:05d}" for i in range(12)]
    assert all({"png", "label.png", "json"} <= sample.keys() for sample in found)


def test_the_paths_are_files_and_folders_to_detectron2(shards):
    entry, _ = shards
    images, labels = entry["IMAGES"], entry["LABELS"]
    assert PathManager.isdir(images) and PathManager.isdir(labels + "/")
    assert PathManager.ls(images) == [f"{i:05d}.png" for i in range(12)]
    assert PathManager.isfile(f"{labels}/00011.png") and PathManager.exists(f"{images}/00000.png")
    for missing in (f"{images}/x.png", images.removesuffix("images"), "shard:///nowhere/images"):
        assert not PathManager.exists(missing)
    with pytest.raises(InputError, match=r"images/x\.png cannot be read: No such file"):
        read_image(f"{images}/x.png")
    with pytest.raises(InputError, match="which is only read"):
        PathManager.open(f"{images}/00000.png", "wb")


def broken(folder, change):
    path = folder / "index.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("format"), "format"),
        (lambda c: c.update(format="other"), "its format is 'other'"),
        (lambda c: c["shards"][0].update(name="../a.tar"), "'../a.tar' is not a file's name"),
        (lambda c: c["images"].append(c["images"][0]), "a name stands there twice"),
        (lambda c: c["images"][0].__setitem__(1, 1), "a shard's number"),
        (lambda c: c["images"][0].__setitem__(2, 511), "a file is not within its shard"),
        (lambda c: c["labels"][0].__setitem__(3, 1 << 40), "a file is not within its shard"),
        (lambda c: c["labels"].append(["x.png", 0, *[2**63 - 1] * 2]), "a file is not within"),
        (lambda c: c["labels"][0].__setitem__(3, 1 << 70), "'labels' .* whole numbers"),
        (lambda c: c["images"][0].__setitem__(2, 512.0), "'images' .* whole numbers"),
        (lambda c: c["images"][0].__setitem__(2, "512"), "'images' .* whole numbers"),
        (lambda c: c["images"].__setitem__(0, 7), r"'images' are \[name, number of the shard"),
        (lambda c: c["images"][0].pop(), r"'images' are \[name, number of the shard"),
        (lambda c: c.update(images={"a": 1}), r"'images' are \[name, number of the shard"),
        (lambda c: c.pop("shards"), "no list of 'shards'"),
        (lambda c: c["shards"][0].update(size=1.5), r"the size of '000000\.tar' is 1\.5"),
    ],
)
def test_a_damaged_index(shards, change, named):
    entry, (path,) = shards
    broken(path.parent, change)
    with pytest.raises(InputError, match=rf"index\.json is not an index .*{named}") as found:
        PathManager.ls(entry["IMAGES"])
    assert "Error" not in str(found.value)


def test_an_index_that_is_no_json_is_told_once(shards):
    entry, (path,) = shards
    (path.parent / "index.json").write_text("{")
    with pytest.raises(InputError, match=r"damaged: it is not JSON.* data convert`$") as found:
        PathManager.ls(entry["IMAGES"])
    assert str(found.value).count("index.json") == 1


def test_an_index_of_other_shards_is_told_where_a_file_is_read(shards):
    """Sizes are equal, and a label lies where the index has another's."""
    entry, (path,) = shards

    def swap(content):
        first, second = content["labels"][:2]
        first[1:], second[1:] = second[1:], first[1:]

    read_member(f"{entry['LABELS']}/00000.png")
    broken(path.parent, swap)
    PathManager.ls(entry["LABELS"])
    read_member(f"{entry['IMAGES']}/00000.png")
    told = r"labels/00000\.png cannot be read: .*000000\.tar has '00001\.label\.png' at its place"
    with pytest.raises(InputError, match=told):
        read_member(f"{entry['LABELS']}/00000.png")


def test_a_name_that_is_longer_than_all_is_not_searched(shards, monkeypatch):
    index = read_index(str(shards[1][0].parent))
    monkeypatch.setattr(np, "searchsorted", pytest.fail)  # which copies all names to its length
    assert index.find("images", "00000.jpeg") is None


def test_a_name_that_a_tar_header_does_not_hold(tmp_path, forgotten):
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


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ("shard://{0}/nothing/images", r"but {0}/nothing/index\.json is missing"),
        ("shard://{0}/mine", "but a path of shards ends in /images or /labels"),
        ("shard://{0}/mine/nothing.json", "but there is none of this name"),
        ("shard://zzz://bucket/images", r"^DATASETS\.FOLDERS\.mine: zzz://bucket/.* zzz"),
    ],
)
def test_a_wrong_path_of_shards_is_named(tmp_path, shards, forgotten, images, named):
    pytest.importorskip("fsspec")
    entry = {**shards[0], "IMAGES": images.format(tmp_path)}
    with pytest.raises(InputError, match=named.format(re.escape(str(tmp_path)))):
        register_folder("mine", entry, str(tmp_path / "cache"))
        check_dataset_present("mine")


def test_a_shard_that_is_missing_or_cut_off(shards):
    entry, (path,) = shards
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"000000\.tar has {len(content) - 1} bytes.* copy it"):
        read_member(f"{entry['IMAGES']}/00000.png")
    path.unlink()
    with pytest.raises(InputError, match=r"000000\.tar is missing"):
        read_index(str(path.parent))


def test_damage_within_a_shard_names_the_image(shards):
    entry, (path,) = shards
    shard, offset, _ = read_index(str(path.parent)).find("images", "00002.png")
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(100))
    with pytest.raises(InputError, match=r"shard://.*/images/00002\.png cannot be read"):
        read_image(f"{entry['IMAGES']}/00002.png")
    assert (shard, read_image(f"{entry['IMAGES']}/00003.png").shape) == (0, (64, 80, 3))


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
def test_class_folders_are_refused(tmp_path, forgotten, to):
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


def test_a_shard_is_opened_once_and_the_index_is_not_looked_at_again(shards, monkeypatch):
    entry, _ = shards
    first = read_member(f"{entry['IMAGES']}/00000.png")
    opened = []
    monkeypatch.setattr(shard_files, "open", lambda *a, **_: opened.append(a), raising=False)
    monkeypatch.setattr("topformer_d2.data.shards.file_stamp", opened.append)
    for number in range(12):
        assert read_member(f"{entry['LABELS']}/{number:05d}.png")[:4] == b"\x89PNG"
    assert opened == []
    assert first == read_member(f"{entry['IMAGES']}/00000.png")


def test_a_shard_is_opened_again_with_a_new_index(tmp_path, shards):
    """The folder is removed and made anew in the same process."""
    entry, (path,) = shards
    before = read_member(f"{entry['IMAGES']}/00002.png")
    content = bytearray(path.read_bytes())
    _, offset, size = read_index(str(path.parent)).find("images", "00002.png")
    content[offset : offset + size] = bytes(size)
    path.unlink()
    path.write_bytes(content)
    os.utime(path.parent / "index.json", ns=(1, 1))
    assert PathManager.isdir(entry["IMAGES"])  # whatever lists the folder
    assert read_member(f"{entry['IMAGES']}/00002.png") == bytes(size) != before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux lists them")
def test_no_more_files_are_open_than_the_cache_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("topformer_d2.data.shard_writer._MIB", 20_000)
    entry = write_shards("synthetic_multitask_train", str(tmp_path / "parts"), 1)
    assert len(read_index(str(tmp_path / "parts")).shards) == 12
    few = functools.lru_cache(maxsize=3)(shard_files.open_shard.__wrapped__)
    monkeypatch.setattr("topformer_d2.data.shards.open_shard", few)
    before = len(os.listdir("/proc/self/fd"))
    for name in PathManager.ls(entry["IMAGES"]):
        assert read_member(f"{entry['IMAGES']}/{name}")
    assert len(os.listdir("/proc/self/fd")) - before == 3


@pytest.mark.parametrize("has_pread", [True, False])
def test_a_shard_that_ends_while_it_is_open_is_named_with_the_sample(
    shards, monkeypatch, has_pread
):
    if not has_pread:  # as on Windows
        monkeypatch.delattr(os, "pread")
    entry, (path,) = shards
    last = f"{entry['IMAGES']}/00011.png"
    whole = read_member(last)
    _, offset, size = read_index(str(path.parent)).find("images", "00011.png")
    assert len(whole) == size
    os.truncate(path, offset + size - 5)
    ends = f"{re.escape(str(path))} ends at byte {offset + size - 5}"
    with pytest.raises(InputError, match=rf"images/00011\.png cannot be read: {ends}"):
        read_member(last)
    with pytest.raises(InputError, match=rf"images/00011\.png cannot be read: {ends}"):
        read_image(last)


def test_parts_of_a_read_are_joined(shards, monkeypatch):
    """A system may give less than it was asked for."""
    entry, _ = shards
    expected = read_member(f"{entry['IMAGES']}/00004.png")
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: read(fd, min(size, 1000), offset))
    assert read_member(f"{entry['IMAGES']}/00004.png") == expected
    assert len(expected) > 2000


def test_shards_are_written_back_as_plain_files(tmp_path, shards, forgotten):
    entry, _ = shards
    write_plain("synthetic_multitask_train", str(tmp_path / "direct"))
    load_config(config(tmp_path / "c.yaml", "mine", f"  FOLDERS:\n    mine: {json.dumps(entry)}\n"))
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
