"""Files that are not what they should be are refused by name, at once."""

import os

import pytest

from topformer_d2.errors import InputError
from topformer_d2.files import check_regular_file, read_json, read_text


def make_fifo(path):
    os.mkfifo(path)


def make_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (make_fifo, "is a pipe"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (make_loop, "cannot be read: Too many levels"),
        (lambda path: None, "cannot be read: No such file"),
    ],
)
def test_what_is_not_a_file(tmp_path, make, named):
    make(tmp_path / "x.json")
    for read in (check_regular_file, read_json, read_text):
        with pytest.raises(InputError, match=rf"x\.json {named}"):
            read(str(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' * 100_000, "nested too deep"),
        (b"[1, 2", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe[\x00", "is not JSON"),
        (b"[" + b"9" * 5000 + b"]", "is not JSON"),
        (rb'{"name": "\ud800"}', "half a character"),
    ],
)
def test_json_that_cannot_be_used(tmp_path, content, named):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.json .*{named}"):
        read_json(str(tmp_path / "x.json"))


def test_a_byte_order_mark_and_whole_pairs_are_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + rb'["\ud83d\ude00", 1]')
    assert read_json(str(tmp_path / "x.json")) == ["\U0001f600", 1]


def test_the_most_bytes(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"12345")
    assert read_text(str(tmp_path / "x.txt"), most=5) == "12345"
    with pytest.raises(InputError, match=r"x\.txt is larger than 4 bytes"):
        read_text(str(tmp_path / "x.txt"), most=4)
