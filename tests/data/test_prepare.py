"""What holds for every archive: repeatable, damaged files listed, wrong sources refused."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import archives
from tests.data.archives import content
from tests.helpers import topformer
from topformer_d2.cli.data_prepare import show_problems
from topformer_d2.data.prepare.pixel_datasets import prepare_sem_seg
from topformer_d2.data.synthetic import make_sample, write_synthetic
from topformer_d2.errors import InputError


@pytest.fixture
def official(tmp_path):
    """CamVid with four pairs a split; 0016E5_000000 to 3 are for training, 10 to 13 for val."""
    return archives.camvid(tmp_path / "made")


@pytest.fixture
def camvid(official):
    return official.sources[0]


def test_a_second_run_does_only_what_is_missing(camvid, tmp_path):
    prepare_sem_seg("camvid", [str(camvid)], str(tmp_path))
    (tmp_path / "camvid/annotations_detectron2/train/0016E5_000001.png").unlink()
    report = prepare_sem_seg("camvid", [str(camvid)], str(tmp_path))["train"]
    assert (report.written, report.kept) == (1, 3)
    assert not list(tmp_path.rglob("*.partial"))


def test_problems_are_listed_and_the_rest_is_done(camvid, tmp_path):
    image = camvid / "train/0016E5_000000.png"
    image.write_bytes(image.read_bytes()[:300])
    (camvid / "train/lonely.jpg").write_bytes(b"x")
    Image.fromarray(np.full((11, 18), 40, np.uint8)).save(camvid / "valannot/0016E5_000010.png")
    Image.fromarray(np.full((12, 19), 40, np.uint8)).save(camvid / "valannot/0016E5_000011.png")
    reports = prepare_sem_seg("camvid", [str(camvid)], str(tmp_path))
    assert reports["train"].written == 3
    assert [p.split()[0] for p in reports["train"].problems] == [
        "CamVid/train/lonely.jpg",
        "CamVid/train/0016E5_000000.png:",
    ]
    assert "(17, 11)" in reports["val"].problems[0] and "(18, 11)" in reports["val"].problems[0]
    assert reports["val"].unknown_ids == {40: 12 * 19}
    written = Image.open(tmp_path / "camvid/annotations_detectron2/val/0016E5_000011.png")
    assert written.mode == "L" and set(written.getdata()) == {255}


def test_a_damaged_archive_loses_only_what_is_damaged(official, tmp_path):
    archive = Path(official.packed("zip", tmp_path)[0])
    content = bytearray(archive.read_bytes())
    name = b"train/0016E5_000000.png"
    content[content.index(name) + len(name) + 300] ^= 0xFF
    archive.write_bytes(content)
    reports = prepare_sem_seg("camvid", [str(archive)], str(tmp_path))
    assert [len(r.problems) for r in reports.values()] == [1, 0, 0]
    assert "0016E5_000000.png: Bad CRC-32" in reports["train"].problems[0]
    cut = Path(official.packed("tar", tmp_path)[0])
    cut.write_bytes(cut.read_bytes()[: cut.read_bytes().index(name) + 600])  # in its content
    with pytest.raises(InputError, match=r"CamVid\.tar is (cut off|not a folder or a whole)"):
        prepare_sem_seg("camvid", [str(cut)], str(tmp_path))


@pytest.mark.parametrize("orientation", [0, 1, 3, 9, "damaged"])
def test_turned_images_are_reported(camvid, orientation, tmp_path):
    file = camvid / "train/0016E5_000000.png"
    image = Image.open(file)
    exif = image.getexif()
    if orientation == "damaged":
        exif = b"Exif\x00\x00no TIFF"
    else:
        exif[0x0112] = orientation
    image.save(file, exif=exif)
    report = prepare_sem_seg("camvid", [str(camvid)], str(tmp_path))["train"]
    problem = f"{file.relative_to(camvid.parent)}: turned by its EXIF orientation, its annotation"
    assert report.problems == ([f"{problem} is not"] if orientation == 3 else [])


def test_the_folder_of_a_split_is_a_source(camvid, tmp_path, monkeypatch):
    monkeypatch.chdir(camvid / "train")
    reports = prepare_sem_seg("camvid", [".", str(camvid / "trainannot")], str(tmp_path))
    assert [(r.written, r.problems) for r in reports.values()] == [(4, []), (0, []), (0, [])]


def test_links_are_followed_but_not_in_circles(camvid, tmp_path):
    prepare_sem_seg("camvid", [str(camvid)], str(tmp_path / "expected"))
    for folder in ("train", "trainannot"):
        (camvid / folder).rename(tmp_path / folder)
        (camvid / folder).symlink_to(tmp_path / folder)
    (camvid / "loop").symlink_to(".")
    (tmp_path / "train" / "back").symlink_to(camvid)
    prepare_sem_seg("camvid", [str(camvid)], str(tmp_path / "root"))
    assert content(tmp_path / "root") == content(tmp_path / "expected")


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


def test_script_prints_counts_and_fails_on_problems(camvid, tmp_path):
    result = topformer("data", "prepare", "camvid", "--source", camvid, "--root", tmp_path / "r")
    assert result.returncode == 0, result.stderr
    assert "train: 4 pairs ready" in result.stdout
    assert "the recipe has 367 pairs, 4 are here" in result.stdout
    shutil.rmtree(camvid / "valannot")
    shutil.rmtree(camvid / "testannot")
    shutil.rmtree(camvid / "test")
    result = topformer("data", "prepare", "camvid", "--source", camvid, "--root", tmp_path / "r2")
    assert result.returncode == 1
    assert "PROBLEM: 4 images and no label: is an archive missing?" in result.stdout
    assert "test: not in this source" in result.stdout


def test_many_problems_go_to_a_file(camvid, tmp_path, capsys):
    for i in range(30):
        (camvid / f"train/lonely{i:02d}.jpg").touch()
    report = prepare_sem_seg("camvid", [str(camvid)], str(tmp_path))["train"]
    show_problems(report)
    lines = capsys.readouterr().out.splitlines()
    file = tmp_path / "camvid/problems_camvid_train.txt"
    assert lines[0] == "PROBLEM: CamVid/train/lonely00.jpg has no label"
    assert lines[20:] == [f"PROBLEM: 30 in all, 20 of them above; {file} lists them"]
    assert file.read_text().splitlines() == report.problems
    for i in range(30):
        (camvid / f"train/lonely{i:02d}.jpg").unlink()
    show_problems(prepare_sem_seg("camvid", [str(camvid)], str(tmp_path))["train"])
    assert capsys.readouterr().out == "" and not file.exists()


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
    with pytest.raises(InputError, match="was not made so"):
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
