"""The checkpoints of a run: a damaged last one gives way to the newest whole one."""

import copy
import math
import os

import pytest
import torch
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn

from topformer_d2.checkpoint import (
    SafeCheckpointer,
    read_state_dict,
    save_state_dict,
)
from topformer_d2.checkpoint import (
    checkpointer as module,
)
from topformer_d2.errors import InputError


class Training:
    """A trainer's state."""

    def __init__(self, iteration):
        self.iteration = iteration

    def state_dict(self):
        inner = {"iteration": self.iteration, "optimizer": {"state": {}, "param_groups": []}}
        return {"iteration": self.iteration, "_trainer": inner}

    def load_state_dict(self, state):
        self.iteration = state["iteration"]


def checkpointer(folder, iteration=0):
    return SafeCheckpointer(nn.Linear(2, 2), str(folder), trainer=Training(iteration))


@pytest.fixture
def folder(tmp_path):
    """With checkpoints of iterations 1 and 3."""
    for iteration in (1, 3):
        checkpointer(tmp_path, iteration).save(f"model_{iteration:07d}", iteration=iteration)
    return tmp_path


def damage_tag(content):
    def damage(folder):
        tag = folder / "last_checkpoint"
        tag.unlink()
        if content == "folder":
            tag.mkdir()
        elif content == "dangling":
            os.symlink("nowhere", tag)
        elif content is not None:
            tag.write_bytes(content)

    return damage


def test_resuming_reads_the_checkpoint_once(folder, monkeypatch):
    read = []
    original = module.read_state_dict
    monkeypatch.setattr(module, "read_state_dict", lambda p: read.append(p) or original(p))
    path = str(folder / "model_0000003.pth")
    resumed = checkpointer(folder)
    assert resumed.has_checkpoint()  # as the trainer asks before it loads
    resumed.resume_or_load("", resume=True)
    assert read == [path] and resumed.checkpointables["trainer"].iteration == 3
    resumed.load(path)  # what was read is not kept for longer
    assert read == [path] * 2


def test_a_checkpoint_that_changes_after_the_look_is_read_again(folder):
    resumed = checkpointer(folder)
    assert resumed.has_checkpoint()
    content = torch.load(folder / "model_0000003.pth", weights_only=True)
    content["model"]["bias"] = torch.tensor([5.0, 6.0])
    torch.save(content, folder / "model_0000003.pth")
    os.utime(folder / "model_0000003.pth", ns=(1, 1))
    resumed.resume_or_load("", resume=True)
    assert resumed.model.bias.tolist() == [5, 6]


TAGS = [None, b"", b"\xff\x00", b"../x.pth", b"gone.pth", "folder", "dangling"]


@pytest.mark.parametrize("content", TAGS, ids=str)
def test_a_damaged_last_checkpoint(folder, content):
    damage_tag(content)(folder)
    found = checkpointer(folder)
    assert found.has_checkpoint()
    assert found.get_checkpoint_file().endswith("model_0000003.pth")


@pytest.mark.parametrize("kind", ["cut", "weights alone", "no _trainer"])
def test_the_newest_is_not_whole(folder, kind):
    newest = folder / "model_0000003.pth"
    content = torch.load(newest, weights_only=True)
    if kind == "cut":
        newest.write_bytes(newest.read_bytes()[:-100])
    elif kind == "weights alone":
        torch.save({"model": content["model"]}, newest)
    else:
        torch.save({**content, "trainer": {"iteration": 3}}, newest)
    assert checkpointer(folder).get_checkpoint_file().endswith("model_0000001.pth")
    (folder / "model_0000001.pth").unlink()
    with pytest.raises(InputError, match=r"model_0000003\.pth"):
        checkpointer(folder).get_checkpoint_file()


@pytest.mark.parametrize(
    "change",
    [
        {"iteration": -5},
        {"iteration": "3"},
        {"iteration": math.nan},
        {"_trainer": None},
        {"_trainer": {"iteration": 3}},
        {"_trainer": {"optimizer": {"state": {}, "param_groups": []}}},
        {"_trainer": {"iteration": 3, "optimizer": {}}},
        {"hooks": None},
        {"hooks": {"LRScheduler": None}},
    ],
    ids=str,
)
def test_a_state_that_cannot_go_on(folder, change):
    newest = folder / "model_0000003.pth"
    content = torch.load(newest, weights_only=True)
    torch.save({**content, "trainer": {**content["trainer"], **change}}, newest)
    assert checkpointer(folder).get_checkpoint_file().endswith("model_0000001.pth")


def test_what_is_not_a_file_where_checkpoints_are_written(folder):
    """None of it may be waited for, and a folder must not end a training at its first save."""
    tag = folder / "last_checkpoint"
    for make in (os.mkfifo, os.mkdir):
        tag.unlink()
        make(tag)
        found = checkpointer(folder, 4)
        assert found.get_checkpoint_file().endswith("model_0000003.pth")
        found.save("model_0000004", iteration=4)
        assert tag.read_text() == "model_0000004.pth"
        (folder / "model_0000004.pth").unlink()
    os.mkfifo(folder / "model_0000009.pth")
    tag.unlink()
    assert checkpointer(folder).get_checkpoint_file().endswith("model_0000003.pth")
    with pytest.raises(InputError, match=r"model_0000009\.pth is a pipe"):
        checkpointer(folder).save("model_0000009")


def test_a_folder_without_checkpoints(tmp_path):
    assert not checkpointer(tmp_path).has_checkpoint()
    save_state_dict({"a": torch.ones(1)}, str(tmp_path / "pretrained.pth"))
    assert not checkpointer(tmp_path).has_checkpoint()
    assert read_state_dict(str(tmp_path / "pretrained.pth"))


def test_the_newest_whole_one_beside_a_refused_one(folder):
    """Of those that are left, one is damaged and one is not wanted."""
    newest = checkpointer(folder, 5)
    newest.save("model_0000005", iteration=5)
    (folder / "model_0000003.pth").write_bytes(b"damaged")
    refused = str(folder / "model_0000005.pth")
    states = []
    assert newest.another_whole(refused, states.append) == str(folder / "model_0000001.pth")
    assert len(states) == 1

    def refuse(state):
        raise InputError("no seed")

    assert newest.another_whole(refused, refuse) == ""


def test_a_checkpointer_without_a_folder_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SafeCheckpointer(nn.Linear(2, 2), "").save("model_final")
    assert os.listdir(tmp_path) == []


def test_lack_of_memory_is_not_taken_for_a_damaged_checkpoint(folder):
    newest = checkpointer(folder, 3)

    def lack(state):
        raise MemoryError

    with pytest.raises(MemoryError):
        newest.another_whole(str(folder / "model_0000003.pth"), lack)


def test_each_damaged_checkpoint_is_named(folder):
    for number in (1, 3):
        (folder / f"model_000000{number}.pth").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model_0000003\.pth .*; .*model_0000001\.pth "):
        checkpointer(folder).get_checkpoint_file()


class Bucket(PathHandler):
    """bucket://a is a file of a folder of this machine."""

    def __init__(self, folder):
        self.folder = folder

    def _get_supported_prefixes(self):
        return ["bucket://"]

    def _get_local_path(self, path, force=False, **_):
        return str(self.folder / path.removeprefix("bucket://"))

    def _open(self, path, mode="r", **_):
        return open(self._get_local_path(path), mode)

    def _exists(self, path, **_):
        return os.path.exists(self._get_local_path(path))

    _isfile = _exists


def test_a_run_in_a_bucket_is_gone_on_from(tmp_path, monkeypatch):
    handlers = copy.copy(PathManager._path_handlers)
    monkeypatch.setattr(PathManager, "_path_handlers", handlers)
    PathManager.register_handler(Bucket(tmp_path))
    (tmp_path / "run").mkdir()
    saved, resumed = checkpointer("bucket://run", 4), checkpointer("bucket://run")
    assert not resumed.has_checkpoint() and resumed.get_checkpoint_file() == ""
    saved.save("model_0000004", iteration=4)
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000004.pth"
    assert resumed.get_checkpoint_file() == "bucket://run/model_0000004.pth"
    resumed.resume_or_load("", resume=True)
    assert resumed.checkpointables["trainer"].iteration == 4
    assert resumed.another_whole("bucket://run/model_0000004.pth", print) == ""
