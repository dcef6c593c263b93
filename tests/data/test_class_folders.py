"""Folders of images for a classifier, and what it sees of them."""

import shutil
from itertools import chain

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from torchvision.datasets import ImageFolder

from tests.helpers import photo, topformer, write_class_folders
from topformer_d2.data import build_test_loader, build_train_loader, check_config
from topformer_d2.data.class_folders import ClassFolders
from topformer_d2.data.class_mapper import ClassMapper, build_class_transform
from topformer_d2.data.images import read_image
from topformer_d2.data.inspection import check_samples, inspect_config
from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError


def test_classes_and_images_are_those_of_torchvisions_image_folder(tmp_path):
    write_class_folders(tmp_path, ("n02", "n10", "n01"), 2)
    photo(tmp_path / "n01" / "b.JPEG")
    (tmp_path / "n10/more").mkdir()
    photo(tmp_path / "n10/more/z.jpg")
    (tmp_path / "n01/notes.txt").write_text("x")
    (tmp_path / "readme.txt").write_text("x")
    theirs = ImageFolder(str(tmp_path))
    ours = ClassFolders(str(tmp_path))
    assert ours.class_names() == theirs.classes == ["n01", "n02", "n10"]
    found = [(r["file_name"], r["class_id"]) for r in ours.records()]
    assert sorted(found) == sorted(theirs.samples) and len(found) == 8


def test_images_beside_the_folders_are_named_once(tiny_classifier, tmp_path, caplog):
    (tmp_path / "train" / "cat").rename(tmp_path / "train/scans.png")  # a folder, no image
    (tmp_path / "val" / "cat").rename(tmp_path / "val/scans.png")
    cfg = tiny_classifier()
    check_samples(cfg, train=True)
    assert "not used" not in caplog.text
    photo(tmp_path / "train/loose.jpg")
    check_samples(cfg, train=True)
    assert caplog.text.count("loose.jpg") == 1
    found = inspect_config(cfg).all_findings
    loose = ("image without label", str(tmp_path / "train/loose.jpg"))
    assert [(f.kind, f.file) for f in found] == [loose]


def test_hidden_folders_are_left_out_and_links_are_followed_once(tmp_path):
    root, other = tmp_path / "images", tmp_path / "other"
    write_class_folders(root, ("cat", "dog"), 2)
    (root / "cat/.ipynb_checkpoints").mkdir()
    photo(root / "cat/.ipynb_checkpoints/0.png")
    other.mkdir()
    photo(other / "9.png")
    (root / "dog/more").symlink_to(other)
    assert [r["class_id"] for r in ClassFolders(str(root)).records()] == [0, 0, 1, 1, 1]
    (root / "cat/in").mkdir()
    link = root / "cat/in/loop"
    for target in (root, root / "cat", tmp_path):
        link.symlink_to(target)
        with pytest.raises(InputError, match=r"cat/in/loop.* is a link to"):
            ClassFolders(str(root)).records()
        link.unlink()


def test_a_config_gets_as_many_classes_as_there_are_folders(tiny_classifier):
    cfg = tiny_classifier()
    assert cfg.MODEL.CLS_HEAD.NUM_CLASSES == 2
    check_config(cfg, train=True)
    check_samples(cfg, train=True)


def test_classes_without_a_folder_are_named_by_the_entry(tmp_path):
    write_class_folders(tmp_path, ("dog",), 1)
    entry = ClassFolders.parse("x", {"CLASS_FOLDERS": str(tmp_path), "CLASSES": ["cat", "dog"]})
    assert entry.class_names() == ["cat", "dog"]
    assert [r["class_id"] for r in entry.records()] == [1]
    (tmp_path / "names.txt").write_text("owl\ncat\ndog\n")
    entry = ClassFolders(str(tmp_path), str(tmp_path / "names.txt"))
    assert [r["class_id"] for r in entry.records()] == [2]
    with pytest.raises(InputError, match=r"CLASSES does not name.*dog"):
        ClassFolders(str(tmp_path), ("cat",)).records()


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"CLASS_FOLDERS": 3}, r"x\.CLASS_FOLDERS is 3"),
        ({"CLASS_FOLDERS": "a", "LABELS": "b"}, r"x\.LABELS is unknown"),
        ({"CLASS_FOLDERS": "a", "CLASSES": []}, r"x\.CLASSES is \[\]"),
        ({"CLASS_FOLDERS": "a", "CLASSES": [1, 2]}, r"x\.CLASSES is \[1, 2\].*quotes"),
        ({"CLASS_FOLDERS": "a", "CLASSES": ["b", "b"]}, r"x\.CLASSES"),
    ],
)
def test_entries_that_are_wrong(entry, named):
    with pytest.raises(InputError, match=named):
        ClassFolders.parse("x", entry)


def empty_class(folder):
    for file in (folder / "cat").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (empty_class, r"train/cat has no image"),
        (lambda folder: shutil.rmtree(folder), r"train is missing or empty"),
        (lambda folder: (folder / "cat/1.png").write_bytes(b"\x89PNG"), r"cat/1\.png cannot be re"),
        (lambda folder: shutil.rmtree(folder / "cat"), r"pets_val.*pets_train.*cat.*CLASSES"),
    ],
    ids=["empty class", "no folder", "unreadable", "another class"],
)
def test_data_that_is_wrong_is_found_before_training(tiny_classifier, tmp_path, damage, named):
    tiny_classifier()
    damage(tmp_path / "train")
    with pytest.raises(InputError, match=named):
        cfg = tiny_classifier()
        check_config(cfg, train=True)
        check_samples(cfg, train=True)
    found = topformer("data", "check", "--config-file", tmp_path / "cls.yaml")
    assert found.returncode == 1
    assert "cat" in found.stdout + found.stderr or "train" in found.stdout + found.stderr


def test_one_class_alone_is_refused(tiny_classifier, tmp_path):
    tiny_classifier()
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / part / "cat")
    with pytest.raises(InputError, match=r"pets_train' has one class, 'dog'"):
        check_config(tiny_classifier(), train=True)


def test_a_class_that_has_no_image_is_named(tiny_classifier, tmp_path, caplog):
    cfg = tiny_classifier()
    for name in ("pets_train", "pets_val"):
        MetadataCatalog.get(name).image_classes.append("owl")
    check_samples(cfg, train=True)
    assert "pets_train: NO IMAGE of 1 of 3 classes: 'owl'" in caplog.text


def test_a_folder_without_folders(tmp_path):
    photo(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"has no folder in it"):
        ClassFolders(str(tmp_path)).records()


def test_data_check_reads_every_image(tiny_classifier, tmp_path):
    tiny_classifier()
    assert topformer("data", "check", "--config-file", tmp_path / "cls.yaml").returncode == 0
    (tmp_path / "val/dog/2.png").write_bytes(b"no image")
    found = topformer("data", "check", "--config-file", tmp_path / "cls.yaml")
    assert found.returncode == 1 and "dog/2.png" in found.stdout


def test_a_test_image_is_the_middle_of_the_resized_one(tiny_classifier):
    cfg = tiny_classifier("INPUT.MIN_SIZE_TEST", "40")  # its own size
    record = load_records("pets_val")[0]
    sample = ClassMapper(cfg, is_train=False)(record)
    pixels = read_image(record["file_name"], "RGB")
    assert torch.equal(sample["image"], torch.tensor(pixels[4:36, 8:40].transpose(2, 0, 1)))
    assert "cls" not in sample and "class_id" not in sample
    (batch,) = build_test_loader(cfg, "pets_val")  # all in one
    assert [tuple(x["image"].shape) for x in batch] == [(3, 32, 32)] * 6


@pytest.mark.parametrize("is_train", [True, False])
def test_images_are_resized_bicubically(tiny_classifier, is_train):
    """As Pillow does it, to half of the size; bilinearly some pixels differ by more."""
    opts = ["INPUT.MIN_SIZE_TEST", "32", "INPUT.CLS.AREA", "(1.0, 1.0)"]
    opts += ["INPUT.RANDOM_FLIP", "none"]
    opts += ["INPUT.CLS.RAND_AUGMENT_OPS", "0", "INPUT.CLS.ERASING_PROB", "0.0"]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    transform = build_class_transform(tiny_classifier(*opts), is_train=is_train)
    found = transform(torch.tensor(pixels.transpose(2, 0, 1))).numpy().transpose(1, 2, 0)
    for kind, is_close in ((Image.BICUBIC, True), (Image.BILINEAR, False)):
        expected = np.asarray(Image.fromarray(pixels).resize((32, 32), kind))
        assert bool(np.abs(found.astype(int) - expected).max() <= 2) is is_close


def test_a_training_sample_depends_on_numpys_generator_alone(tiny_classifier):
    mapper = ClassMapper(tiny_classifier("INPUT.CLS.ERASING_PROB", "1.0"), is_train=True)
    record = load_records("pets_train")[4]
    found = []
    for numpy_seed, torch_seed in ((0, 0), (0, 1), (1, 0)):
        np.random.seed(numpy_seed)
        torch.manual_seed(torch_seed)
        before = torch.get_rng_state()
        found.append(mapper(record)["image"])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert found[0].dtype == torch.uint8 and found[0].shape == (3, 32, 32)


def test_the_stream_is_the_same_by_any_number_of_workers_and_from_any_start(tiny_classifier):
    def batches(workers, start=0):
        loader = build_train_loader(tiny_classifier("DATALOADER.NUM_WORKERS", str(workers)))
        loader.start_iter = start
        stream = iter(loader)
        return [next(stream) for _ in range(4 - start)]

    plain, parallel, resumed = batches(0), batches(2), batches(0, start=2)
    assert {x["cls"] for batch in plain for x in batch} == {0, 1}
    for a, b in ((plain, parallel), (plain[2:], resumed)):
        for x, y in zip(chain(*a), chain(*b), strict=True):
            assert x["cls"] == y["cls"] and torch.equal(x["image"], y["image"])


def test_a_class_out_of_range_names_the_file(tiny_classifier):
    mapper = ClassMapper(tiny_classifier(), is_train=True)
    record = {**load_records("pets_train")[0], "class_id": 2}
    with pytest.raises(InputError, match=r"cat/0\.png has class 2"):
        mapper(record)
