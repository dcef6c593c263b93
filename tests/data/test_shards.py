"""A dataset in tar files trains and reads as the loose files do."""

import functools
import json
import os
import tarfile

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from tests.helpers import REPOSITORY
from topformer_d2.config import load_config
from topformer_d2.data import build_test_loader, build_train_loader, shard_files
from topformer_d2.data.images import read_image
from topformer_d2.data.shard_writer import write_shards
from topformer_d2.data.shards import read_index, read_member
from topformer_d2.errors import InputError

JOINT = REPOSITORY / "configs/multitask_lite_topformer_t_synthetic.yaml"


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


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_samples_are_those_of_the_loose_files(tmp_path, shards, forget, workers):
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


def test_a_name_that_is_longer_than_all_is_not_searched(shards, monkeypatch):
    index = read_index(str(shards[1][0].parent))
    monkeypatch.setattr(np, "searchsorted", pytest.fail)  # which copies all names to its length
    assert index.find("images", "00000.jpeg") is None


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


def test_parts_of_a_read_are_joined(shards, monkeypatch):
    """A system may give less than it was asked for."""
    entry, _ = shards
    expected = read_member(f"{entry['IMAGES']}/00004.png")
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: read(fd, min(size, 1000), offset))
    assert read_member(f"{entry['IMAGES']}/00004.png") == expected
    assert len(expected) > 2000
