"""Which files are data, and writing them so that nothing half is left."""

import os
import threading
from pathlib import Path

import pytest

from topformer_d2.data import files
from topformer_d2.data.files import list_images, write_beside
from topformer_d2.data.sem_seg import label_files, load_image_label_pairs
from topformer_d2.errors import InputError


def touch(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_hidden_files_are_no_data_and_extensions_have_any_case(tmp_path):
    images = touch(tmp_path / "images", "x.JPG", "y-1.jpg", "y.jpeg", "._x.jpg", ".y.jpg.partial")
    labels = touch(tmp_path / "labels", "x.PNG", "y-1.png", "y.png", "._x.png", "._x.PNG", "x.txt")
    assert [Path(p).name for p in list_images(images)] == ["x.JPG", "y-1.jpg", "y.jpeg"]
    assert {stem: Path(p).name for stem, p in label_files(labels).items()} == {
        "x": "x.PNG",
        "y": "y.png",
        "y-1": "y-1.png",
    }
    records = load_image_label_pairs(images, labels)
    assert [Path(r["file_name"]).name for r in records] == ["x.JPG", "y.jpeg", "y-1.jpg"]
    with pytest.raises(InputError, match="holds no label PNG"):
        label_files(touch(tmp_path / "hidden", "._x.png"))
    touch(tmp_path / "labels", "x.png")
    with pytest.raises(InputError, match=r"x\.PNG and x\.png share a stem"):
        label_files(labels)


def test_two_runs_at_once_write_one_after_the_other(tmp_path, monkeypatch):
    path, replace = tmp_path / "x.json", os.replace
    is_written, may_rename, second_is_done = (threading.Event() for _ in range(3))

    def wait_and_replace(partial, target):
        if not is_written.is_set():
            is_written.set()
            assert may_rename.wait(10)
        replace(partial, target)

    def write_second():
        write_beside(path, b"second")
        second_is_done.set()

    monkeypatch.setattr(files.os, "replace", wait_and_replace)
    first = threading.Thread(target=write_beside, args=(path, b"the first"))
    second = threading.Thread(target=write_second)
    first.start()
    assert is_written.wait(10)
    second.start()
    assert not second_is_done.wait(0.2) and not path.exists()
    may_rename.set()
    first.join(10), second.join(10)
    assert second_is_done.is_set() and path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["x.json"]


def test_what_a_killed_run_left_is_written_over(tmp_path):
    (tmp_path / ".x.json.partial").write_bytes(b"longer than what is written now")
    write_beside(tmp_path / "x.json", b"whole")
    assert (tmp_path / "x.json").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["x.json"]
