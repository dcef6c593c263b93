"""Writing so that a failure, a full disk or a killed process loses nothing."""

import errno
import json
import math
import os
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from topformer_d2.errors import InputError
from topformer_d2.files import (
    check_local_output,
    check_output,
    folder_beside,
    room,
    write_beside,
    write_json,
    writing,
    writing_beside,
)


def write_and_be_killed(target):
    """Be killed while a file and a folder are written beside their places."""
    with folder_beside(target) as folder, writing_beside(target) as f:
        (folder / "model").write_bytes(b"half")
        f.write(b"half")
        f.flush()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def not_cleaned_yet(monkeypatch):
    monkeypatch.setattr(writing, "_cleaned", set())


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_bytes(b"before")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing.os, "replace", Mock(side_effect=KeyboardInterrupt))
        write_beside(path, b"half")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_beside(tmp_path / "folder", b"x")
    assert path.read_bytes() == b"before" and sorted(os.listdir(tmp_path)) == ["folder", "x.json"]


def test_a_pipe_is_written_directly(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        content = pool.submit(pipe.read_bytes)
        write_beside(pipe, b"x")
        assert content.result(10) == b"x" and pipe.is_fifo()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="has no such folder")
def test_a_file_below_dev_is_replaced():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for content in (b"longer before", b"after"):
            write_beside(Path(folder) / "x.json", content)
        assert (Path(folder) / "x.json").read_bytes() == b"after"


def test_writers_at_once_have_files_of_their_own(tmp_path):
    path = tmp_path / "x.json"
    with writing_beside(path) as first:
        first.write(b"the first")
        write_beside(path, b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"the first" and os.listdir(tmp_path) == ["x.json"]


def test_what_a_killed_process_left_is_removed_and_what_is_written_now_is_not(tmp_path):
    target = tmp_path / "model.onnx"
    killed = os.fork()  # which does not import PyTorch anew
    if not killed:
        try:
            write_and_be_killed(target)
        finally:
            os._exit(1)
    assert os.waitpid(killed, 0)[1] == signal.SIGKILL and len(os.listdir(tmp_path)) == 2
    other = tmp_path / ".model.onnx.partial"  # no name of ours
    other.touch()
    with folder_beside(target) as folder, writing_beside(target) as f:
        writing._cleaned.clear()
        write_beside(tmp_path / "x.json", b"whole")
        assert folder.is_dir() and f.write(b"x") == 1
        assert len(os.listdir(tmp_path)) == 4
    assert sorted(os.listdir(tmp_path)) == [other.name, "model.onnx", "x.json"]


def test_a_link_in_the_way_is_not_followed(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    names = iter(["00000000", "11111111"])
    monkeypatch.setattr(writing.secrets, "token_hex", lambda _: next(names))
    link = tmp_path / f".x.json.{os.getpid()}-00000000.partial"
    link.symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_beside(tmp_path / "x.json", b"whole")
    write_beside(tmp_path / "x.json", b"whole")
    assert outside.read_bytes() == b"kept"


@pytest.mark.parametrize("write", [lambda f: f.write(b"x"), lambda f: torch.save({"x": 1}, f)])
def test_a_full_disk_is_named_whatever_a_library_makes_of_it(tmp_path, monkeypatch, write):
    full = OSError(errno.ENOSPC, "No space left on device")
    open_file = os.fdopen

    def open_full(descriptor, mode):
        file = open_file(descriptor, mode)
        return Mock(wraps=file, write=Mock(side_effect=full), fileno=file.fileno, close=file.close)

    monkeypatch.setattr(writing.os, "fdopen", open_full)
    with pytest.raises(OSError) as error, writing_beside(tmp_path / "model.pth") as f:
        write(f)
    assert (error.value.errno, error.value.filename) == (
        errno.ENOSPC,
        str(tmp_path / "model.pth"),
    )
    assert os.listdir(tmp_path) == []


def test_a_durable_file_and_its_folder_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(writing.os, "fsync", lambda d: synced.append(os.readlink(f"/dev/fd/{d}")))
    write_beside(tmp_path / "x", b"x", durable=True)
    assert [Path(path).parent.name for path in synced] == [tmp_path.name, tmp_path.parent.name]


def test_json_has_no_nan(tmp_path):
    write_json(str(tmp_path / "x.json"), {"a": [1.5, math.nan], "b": {"c": math.inf}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1.5, None], "b": {"c": None}}


def test_a_long_name_is_written(tmp_path):
    name = "é" * 120 + ".json"  # 245 bytes
    write_beside(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]


def test_a_device_is_not_tried_beside(monkeypatch):
    monkeypatch.setattr(writing.tempfile, "TemporaryFile", None)
    check_output("/dev/null", "--json")


def test_a_local_file_of_one_extension(tmp_path):
    check_local_output(str(tmp_path / "new" / "m.onnx"), "path", ".onnx")
    assert (tmp_path / "new").is_dir()
    for path, message in (
        ("s3://bucket/m.onnx", "`path` s3://bucket/m.onnx is a remote store's"),
        (str(tmp_path / "m.xml"), r"ends in \.onnx"),
    ):
        with pytest.raises(InputError, match=message):
            check_local_output(path, "path", ".onnx")


def test_a_target_that_cannot_be_replaced_is_named(tmp_path):
    target = tmp_path / "a.png"
    target.mkdir()
    with pytest.raises(IsADirectoryError) as failed:
        write_beside(target, b"x")
    assert failed.value.filename == str(target)
    with pytest.raises(OSError) as failed, folder_beside(target) as folder:
        (folder / "x").write_bytes(b"x")
        os.replace(folder / "x", target)
    assert failed.value.filename == str(target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_in_which_nothing_can_be_made_is_not_told_by_a_partial_name(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name in ("_open_new", "_open_new_folder"):
        monkeypatch.setattr(writing, name, refuse)
    for write in (writing_beside, folder_beside):
        with pytest.raises(PermissionError) as failed, write(tmp_path / "a.png"):
            pass
        assert failed.value.filename == str(tmp_path / "a.png")


def test_a_full_disk_under_a_library_that_says_something_else(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "x.onnx"
    with pytest.raises(RuntimeError, match="Protobuf"), folder_beside(target):
        raise RuntimeError("Protobuf serialization failed")  # of another cause
    monkeypatch.setattr(room.tempfile, "TemporaryFile", full)
    with (
        pytest.raises(OSError, match="No space left") as failed,
        folder_beside(target) as folder,
        folder_beside(folder / "x.onnx"),
    ):
        raise RuntimeError("Protobuf serialization failed")
    assert failed.value.filename == str(target)
    with pytest.raises(InputError, match="of its own"), folder_beside(target):
        raise InputError("a message of its own")  # which is of no disk
    with pytest.raises(OSError) as failed, folder_beside(target):
        raise OSError(errno.EACCES, "Permission denied", str(tmp_path / "other"))
    assert failed.value.filename == str(tmp_path / "other")
    assert not list(tmp_path.iterdir())
