"""What tells that a file or folder has changed."""

import os

import pytest

from topformer_d2.files import file_stamp, stamp


def add(folder):
    (folder / "deep/new.txt").write_text("x")


def change(folder):
    os.utime(folder / "deep/a.txt", ns=(1, 1))


def grow(folder):
    status = os.stat(folder / "b.txt")
    (folder / "b.txt").write_text("longer")
    os.utime(folder / "b.txt", ns=(status.st_atime_ns, status.st_mtime_ns))


def rename(folder):
    (folder / "b.txt").rename(folder / "c.txt")


def remove(folder):
    (folder / "deep/a.txt").unlink()


def replace(folder):
    """By a file of the same size and time."""
    status = os.stat(folder / "deep/a.txt")
    (folder / "deep/new.txt").write_text("y")
    os.utime(folder / "deep/new.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(folder / "deep/new.txt", folder / "deep/a.txt")


@pytest.mark.parametrize("do", [add, change, grow, rename, remove, replace])
def test_whatever_happens_in_a_folder_is_seen(tmp_path, do):
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "deep/a.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    before, of_file = stamp(tmp_path), file_stamp(tmp_path / "deep/a.txt")
    assert stamp(tmp_path) == before and before[1] == 3
    do(tmp_path)
    is_other = do in (change, remove, replace)
    assert (file_stamp(tmp_path / "deep/a.txt") != of_file) == is_other
    assert stamp(tmp_path) != before


def test_a_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    assert stamp(path) == (str(path), 0, 0, 0, 0)
    path.write_text("four")
    os.utime(path, ns=(7, 9))
    monkeypatch.chdir(tmp_path)
    status = path.stat()
    expected = (str(path), 9, status.st_ctime_ns, 4, status.st_ino)
    assert stamp("a.txt") == file_stamp(path) == expected
    assert file_stamp(tmp_path) == (str(tmp_path), 0, 0, 0, 0)
