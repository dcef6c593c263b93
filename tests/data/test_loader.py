"""The training stream depends on seed and position alone; unusable files are named."""

import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from PIL import Image

from topformer_d2.data import build_test_loader, build_train_loader
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.sem_seg import load_image_label_pairs
from topformer_d2.errors import InputError


def train_loader(cfg, seed):
    cfg.SEED = seed
    return build_train_loader(cfg)


def take(loader, count):
    stream = iter(loader)
    return [next(stream) for _ in range(count)]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert [s["file_name"] for s in x] == [s["file_name"] for s in y]
        assert all(torch.equal(s["image"], t["image"]) for s, t in zip(x, y, strict=True))
        assert all(torch.equal(s["sem_seg"], t["sem_seg"]) for s, t in zip(x, y, strict=True))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_fifty_batches_are_the_same_for_any_workers_and_start(tiny_config, workers):
    cfg = tiny_config("INPUT.SCALE_RANGE", "[0.5, 2.0]", "INPUT.COLOR_AUG_SSD", "True")
    reference = take(train_loader(cfg, 7), 50)
    cfg.DATALOADER.NUM_WORKERS = workers
    assert_same(take(train_loader(cfg, 7), 50), reference)
    resumed = train_loader(cfg, 7)
    resumed.start_iter = 37
    assert_same(take(resumed, 13), reference[37:])
    other = take(train_loader(cfg, 8), 1)
    assert [s["file_name"] for s in other[0]] != [s["file_name"] for s in reference[0]]


def test_processes_share_the_stream(tiny_config, monkeypatch):
    """Two ranks draw what one process would, every other sample each."""
    opts = ("INPUT.SCALE_RANGE", "[0.5, 2.0]", "INPUT.COLOR_AUG_SSD", "True")
    alone = take(train_loader(tiny_config(*opts, "SOLVER.IMS_PER_BATCH", "4"), 7), 3)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    ranks = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        ranks.append(take(train_loader(tiny_config(*opts, "SOLVER.IMS_PER_BATCH", "4"), 7), 3))
    together = [
        [sample for pair in zip(*batches, strict=True) for sample in pair]
        for batches in zip(*ranks, strict=True)
    ]
    assert_same(together, alone)


def test_an_epoch_holds_every_image_once(tiny_config):
    batches = take(build_train_loader(tiny_config()), 6)
    first, second = (
        [s["file_name"] for b in half for s in b] for half in (batches[:3], batches[3:])
    )
    assert len(set(first)) == len(set(second)) == 12
    assert first != second
    sample = batches[0][0]
    assert (sample["image"].dtype, sample["sem_seg"].dtype) == (torch.uint8, torch.int64)


def test_the_model_does_not_see_test_labels(tiny_config):
    samples = [batch[0] for batch in build_test_loader(tiny_config(), "synthetic_sem_seg_val")]
    assert len(samples) == 4
    assert all("sem_seg" not in s and s["image"].shape == (3, 64, 80) for s in samples)
    assert all((s["height"], s["width"]) == (64, 80) for s in samples)


def test_batch_size_is_checked(tiny_config):
    with pytest.raises(InputError, match=r"SOLVER\.IMS_PER_BATCH is 0"):
        build_train_loader(tiny_config("SOLVER.IMS_PER_BATCH", "0"))


@pytest.fixture
def record(tmp_path):
    """A record of the training split whose files may be spoilt."""
    original = DatasetCatalog.get("synthetic_sem_seg_train")[0]
    return {
        key: str(shutil.copy(original[key], tmp_path / f"{key}.png"))
        for key in ("file_name", "sem_seg_file_name")
    }


def test_truncated_image_is_named(tiny_config, record):
    with open(record["file_name"], "r+b") as f:
        f.truncate(200)
    for is_train in (True, False):
        with pytest.raises(InputError, match=r"file_name\.png cannot be read"):
            TaskMapper(tiny_config(), is_train=is_train)(dict(record))


def test_missing_label_is_named(tiny_config, record):
    record["sem_seg_file_name"] += ".gone"
    with pytest.raises(InputError, match=r"sem_seg_file_name\.png\.gone cannot be read"):
        TaskMapper(tiny_config(), is_train=True)(record)


def test_label_out_of_range_is_named_with_its_value(tiny_config, record):
    Image.fromarray(np.full((64, 80), 77, np.uint8)).save(record["sem_seg_file_name"])
    with pytest.raises(InputError, match=r"sem_seg_file_name\.png: label 77 .* 6 classes.*255"):
        TaskMapper(tiny_config(), is_train=True)(record)


def test_palette_labels_are_refused(tiny_config, record):
    """Read as luminance, the palette's indices 1 and 2 would become other ids."""
    label = Image.fromarray(np.ones((64, 80), np.uint8)).convert("P")
    label.putpalette([0, 0, 0, 255, 0, 0])
    label.save(record["sem_seg_file_name"])
    with pytest.raises(InputError, match=r"sem_seg_file_name\.png has mode 'P'.*8-bit"):
        TaskMapper(tiny_config(), is_train=True)(record)


def test_sizes_that_differ_are_named(tiny_config, record):
    for size, hint in (((10, 20), "$"), ((80, 64), r"\. An image is turned by its EXIF")):
        Image.fromarray(np.zeros(size, np.uint8)).save(record["sem_seg_file_name"])
        sizes = rf"\(64, 80\).*\({size[0]}, {size[1]}\)"
        with pytest.raises(InputError, match=sizes + hint):
            TaskMapper(tiny_config(), is_train=True)(record)


def test_pairs_are_found_by_stem(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir(), labels.mkdir()
    for name in ("b.JPG", "a.png", "extra.jpg", "notes.txt"):
        (images / name).touch()
    for name in ("a.png", "b.png"):
        (labels / name).touch()
    records = load_image_label_pairs(str(images), str(labels))
    assert [r["file_name"].rpartition("/")[2] for r in records] == ["a.png", "b.JPG"]
    (images / "a.bmp").touch()
    with pytest.raises(InputError, match=r"a\..* share a stem"):
        load_image_label_pairs(str(images), str(labels))
    (images / "a.bmp").unlink()
    (labels / "lonely.png").touch()
    with pytest.raises(InputError, match=r"1 labels.*lonely\.png"):
        load_image_label_pairs(str(images), str(labels))
    with pytest.raises(InputError, match="does not exist"):
        load_image_label_pairs(str(images), str(tmp_path / "nowhere"))
