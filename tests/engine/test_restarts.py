"""From which checkpoint processes go on that were started again, and whether they do."""

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from torch import distributed, nn

from tests.helpers import REPOSITORY
from topformer_d2.checkpoint import SafeCheckpointer
from topformer_d2.cli import train as command
from topformer_d2.config import load_config
from topformer_d2.engine import restarts
from topformer_d2.engine.launch import launch
from topformer_d2.engine.launched import Launched
from topformer_d2.engine.restarts import (
    MARK,
    FirstFailedError,
    agree_to_resume,
    from_first,
    taking_firsts_checkpoint,
)
from topformer_d2.errors import InputError


def launched(starter="host 7 1", restarts=0, run=""):
    return Launched("torchrun", 0, 1, 0, 0, run=run, starter=starter, restarts=restarts)


def save(folder, iteration, name=None):
    """A checkpoint as far as one of a training is looked at before it is loaded."""
    folder.mkdir(exist_ok=True)
    inner = {"iteration": iteration, "optimizer": {"state": {}, "param_groups": []}}
    content = {
        "model": {"weight": torch.full((1,), float(iteration))},
        "trainer": {"iteration": iteration, "_trainer": inner},
    }
    name = name or f"model_{iteration:07d}.pth"
    torch.save(content, folder / name)
    (folder / "last_checkpoint").write_text(name)


def mark(folder):
    return json.loads((folder / MARK).read_text())


def test_a_new_run_starts_anew_and_goes_on_from_its_own_checkpoints(tmp_path):
    folder = str(tmp_path)
    assert not agree_to_resume(launched(), folder, asked=False)
    assert mark(tmp_path) == {"run": "", "starters": ["host 7 1"]}
    assert not agree_to_resume(launched(restarts=1), folder, asked=False)  # failed before the first
    save(tmp_path, 3)
    assert agree_to_resume(launched(restarts=2), folder, asked=False)
    # A machine has joined, for which nothing is counted.
    assert agree_to_resume(launched(), folder, asked=False)


def test_a_named_run_is_the_same_under_another_launcher(tmp_path):
    agree_to_resume(launched(run="job7"), str(tmp_path), asked=False)
    save(tmp_path, 3)
    assert agree_to_resume(launched("host 8 2", run="job7"), str(tmp_path), asked=False)
    with pytest.raises(InputError, match="checkpoints of another run"):
        agree_to_resume(launched("host 9 3", run="job8"), str(tmp_path), asked=False)


def test_runs_without_a_name_are_told_apart_by_their_launchers(tmp_path):
    agree_to_resume(launched("host 7 1"), str(tmp_path), asked=False)
    save(tmp_path, 3)
    with pytest.raises(InputError, match="checkpoints of another run"):
        agree_to_resume(launched("host 9 3"), str(tmp_path), asked=False)


@pytest.mark.parametrize("former", [None, launched("other 8 2"), launched("host 7 1", run="job6")])
def test_checkpoints_of_another_run_are_refused_again_after_a_restart(tmp_path, former):
    """Also by a process whose launcher has lost the first ones before they had met."""
    if former:
        agree_to_resume(former, str(tmp_path), asked=False)
    save(tmp_path, 3)
    before = (tmp_path / MARK).read_bytes() if former else None
    own = "host 9 3" if former and former.run else "host 7 1"
    for count in (0, 1, 2):
        with pytest.raises(InputError, match=r"another run.* with `resume`, or name another"):
            agree_to_resume(launched(own, count, "job7"), str(tmp_path), asked=False)
        assert (tmp_path / MARK).exists() == bool(former)
        assert not former or (tmp_path / MARK).read_bytes() == before
    assert agree_to_resume(launched(own, 0, "job7"), str(tmp_path), asked=True)
    assert agree_to_resume(launched(own, 1, "job7"), str(tmp_path), asked=False)


def test_damaged_checkpoints_of_the_run_itself_are_not_taken_for_anothers(tmp_path):
    agree_to_resume(launched(), str(tmp_path), asked=False)
    save(tmp_path, 3)
    (tmp_path / "model_0000003.pth").write_bytes(b"cut off")
    assert agree_to_resume(launched(restarts=1), str(tmp_path), asked=False)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"run": 1, "starters": []}', b'{"run": "", "starters": [1]}']
)
def test_a_damaged_mark_is_none(tmp_path, content):
    (tmp_path / MARK).write_bytes(content)
    assert not agree_to_resume(launched(), str(tmp_path), asked=False)
    assert mark(tmp_path)["starters"] == ["host 7 1"]


@pytest.mark.parametrize(("count", "resumes"), [(0, False), (1, True)])
def test_in_a_remote_folder_the_launchers_count_decides(count, resumes):
    assert agree_to_resume(launched(restarts=count), "s3://bucket/run", asked=False) is resumes


class Others:
    """Stands for the other processes: their answers to each question, by turns."""

    def __init__(self, monkeypatch, rank, answers):
        self.rank, self.answers, self.own = rank, list(answers), []
        monkeypatch.setattr(comm, "all_gather", self.gather)
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_local_rank", lambda: 0)
        monkeypatch.setattr(comm, "get_world_size", lambda: 2)
        monkeypatch.setattr(comm, "is_main_process", lambda: rank == 0)

    def gather(self, value):
        self.own.append(value)
        answer = self.answers.pop(0)
        return [value, answer] if self.rank == 0 else [answer, value]


def test_what_the_first_process_meets_ends_the_others_without_a_word(monkeypatch):
    def fail():
        raise InputError("the disk is full")

    first = Others(monkeypatch, 0, [None])
    with pytest.raises(InputError, match="the disk is full"):
        from_first(fail)
    assert first.own == [(True, None)]
    Others(monkeypatch, 1, [(True, None)])
    with pytest.raises(FirstFailedError):
        from_first(pytest.fail)
    Others(monkeypatch, 1, [(False, "found")])
    assert from_first(pytest.fail) == "found"


def test_the_newest_checkpoint_of_the_run_comes_from_whichever_machine_has_it(
    monkeypatch, tmp_path
):
    """OUTPUT_DIR is local: this first process has one of iteration 3, another machine of 8."""
    agree_to_resume(launched(), str(tmp_path), asked=False)
    save(tmp_path, 3)
    save(tmp_path / "other", 8)
    content = (tmp_path / "other/model_0000008.pth").read_bytes()
    monkeypatch.setattr(restarts, "_broadcast", lambda own, source: content if source else own)
    # Starter, count and --resume, what it has, iteration, decision, name of the file, its writing.
    answers = [("host2 9 9", 0, False), (False, {}), 8, None, "model_0000008.pth", None]
    Others(monkeypatch, 0, answers)
    assert agree_to_resume(launched(), str(tmp_path), asked=False)
    assert mark(tmp_path)["starters"] == ["host 7 1", "host2 9 9"]
    path = SafeCheckpointer(nn.Identity(), str(tmp_path)).get_checkpoint_file()
    assert Path(path).read_bytes() == content


def test_of_equal_checkpoints_the_first_process_keeps_its_own(monkeypatch, tmp_path):
    agree_to_resume(launched(), str(tmp_path), asked=False)
    save(tmp_path, 3)
    monkeypatch.setattr(restarts, "_copy_to_first", lambda *_: pytest.fail("it was copied"))
    Others(monkeypatch, 0, [("host 7 1", 1, False), (False, {}), 3, None])
    assert agree_to_resume(launched(restarts=1), str(tmp_path), asked=False)


def test_a_checkpoint_of_another_run_on_this_machine_does_not_count(monkeypatch, tmp_path):
    save(tmp_path, 8)
    (tmp_path / MARK).write_text('{"run": "", "starters": ["another 1 1"]}')
    answers = [("host2 9 9", 1, False), (True, {}), 3, (False, True)]
    others = Others(monkeypatch, 1, answers)
    assert agree_to_resume(launched(), str(tmp_path), asked=True)  # which the first one was not
    assert others.own[2] == -1


def test_resume_of_another_run_takes_the_checkpoint_of_another_machine(monkeypatch, tmp_path):
    """The launchers were started by hand, and the first process has moved to a machine without."""
    save(tmp_path / "other", 8)
    content = (tmp_path / "other/model_0000008.pth").read_bytes()
    monkeypatch.setattr(restarts, "_broadcast", lambda own, source: content if source else own)
    answers = [("host2 9 9", 0, True), (False, {}), 8, None, "model_0000008.pth", None]
    Others(monkeypatch, 0, answers)
    assert agree_to_resume(launched(run="job8"), str(tmp_path), asked=True)
    path = SafeCheckpointer(nn.Identity(), str(tmp_path)).get_checkpoint_file()
    assert Path(path).read_bytes() == content


@pytest.mark.parametrize(
    ("of_first", "iteration"),
    [
        ((False, {}), 8),
        ((True, {}), -1),
        ((True, {"run": "job7", "starters": ["host2 9 9"]}), 8),
        ((True, {"run": "", "starters": ["host 7 1"]}), 8),
        ((True, {"run": "job6", "starters": ["host2 9 9"]}), -1),
    ],
    ids=["it has none", "they have no mark", "one name", "one launcher", "another run's"],
)
def test_resume_means_the_run_that_the_first_process_has(
    monkeypatch, tmp_path, of_first, iteration
):
    save(tmp_path, 8)
    (tmp_path / MARK).write_text('{"run": "job7", "starters": ["host 7 1"]}')
    answers = [("host2 8 8", 0, True), of_first, 3, (False, True)]
    others = Others(monkeypatch, 1, answers)
    new = launched("host 9 3", run="job8")
    monkeypatch.setattr(restarts, "_copy_to_first", lambda *_: None)
    assert agree_to_resume(new, str(tmp_path), asked=True)
    assert others.own[2] == iteration


class Trainer:
    """What is saved beside the weights."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.iteration = state["iteration"]


def other_machine(monkeypatch, tmp_path, rank, answers, machine):
    """A process that is not the first, a checkpointer of its own OUTPUT_DIR, and what is sent."""
    save(tmp_path / "first", 8)
    save(tmp_path / "own", 3)
    path = tmp_path / "first/model_0000008.pth"
    sent = []
    monkeypatch.setattr(restarts, "_broadcast", lambda *a: sent.append(a) or path.read_bytes())
    monkeypatch.setattr(restarts, "ranks_of_machine", lambda: machine)
    found = (False, (str(path), sha256(path.read_bytes()).hexdigest()))
    others = Others(monkeypatch, rank, [found, *answers])
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(1))
    trainer = Trainer()
    checkpointer = SafeCheckpointer(model, str(tmp_path / "own"), trainer=trainer)
    return others, checkpointer, trainer, sent


@pytest.mark.parametrize("has_other", [False, True], ids=["no such file", "another content"])
def test_all_processes_go_on_from_the_firsts_checkpoint(monkeypatch, tmp_path, has_other):
    # Whether the first lacks it, its copy, and whether it has failed.
    _, checkpointer, trainer, sent = other_machine(
        monkeypatch, tmp_path, 1, [False, "", False], [1]
    )
    if has_other:
        save(tmp_path / "own", 9, "model_0000008.pth")
    with taking_firsts_checkpoint(checkpointer):
        copy = Path(checkpointer.get_checkpoint_file())
        assert checkpointer.has_checkpoint() and copy.name == "model_0000008.pth"
        checkpointer.resume_or_load("", resume=True)
    assert (trainer.iteration, checkpointer.model.weight.item()) == (8, 8.0)
    assert len(sent) == 1 and not copy.exists()
    own = "model_0000008.pth" if has_other else "model_0000003.pth"
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "own" / own)


def test_nothing_is_copied_where_the_folder_is_seen_by_all(monkeypatch, tmp_path):
    _, checkpointer, trainer, sent = other_machine(monkeypatch, tmp_path, 1, [False, False], [0, 1])
    checkpointer.save_dir = str(tmp_path / "first")
    monkeypatch.setattr(restarts.tempfile, "TemporaryDirectory", pytest.fail)
    with taking_firsts_checkpoint(checkpointer):
        path = checkpointer.get_checkpoint_file()
        assert path == str(tmp_path / "first/model_0000008.pth")
        checkpointer.resume_or_load("", resume=True)
    assert (trainer.iteration, sent) == (8, [])


def test_a_machine_has_one_copy(monkeypatch, tmp_path):
    """Of processes 1 and 2 of another machine 1 writes it, and 2 reads that."""
    others, checkpointer, trainer, sent = other_machine(monkeypatch, tmp_path, 2, [], [1, 2])
    copy = tmp_path / "of process 1/model_0000008.pth"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "first/model_0000008.pth").read_bytes())
    every = iter([others.answers, [False, True, True], ["", str(copy), ""], [False] * 3])
    own = []
    monkeypatch.setattr(comm, "all_gather", lambda value: own.append(value) or next(every))
    monkeypatch.setattr(restarts.tempfile, "TemporaryDirectory", pytest.fail)
    with taking_firsts_checkpoint(checkpointer):
        assert checkpointer.get_checkpoint_file() == str(copy)
        checkpointer.resume_or_load("", resume=True)
    assert (trainer.iteration, len(sent), own[1:]) == (8, 1, [True, "", False])


def test_a_checkpoint_that_is_refused_is_told_by_the_first_process(monkeypatch, tmp_path):
    """It names the file, of which another machine has a copy under another name."""
    _, checkpointer, _, _ = other_machine(monkeypatch, tmp_path, 1, [False, "", True], [1])
    with pytest.raises(FirstFailedError), taking_firsts_checkpoint(checkpointer):
        raise InputError(f"{checkpointer.get_checkpoint_file()} does not fit")
    Others(monkeypatch, 0, [None, True, str(tmp_path / "copy.pth"), True])
    checkpointer = SafeCheckpointer(nn.Identity(), str(tmp_path / "first"), trainer=Trainer())
    path = re.escape(str(tmp_path / "first/model_0000008.pth"))
    with (
        pytest.raises(InputError, match=f"^{path} does not fit"),
        taking_firsts_checkpoint(checkpointer),
    ):
        raise InputError(f"{checkpointer.get_checkpoint_file()} does not fit")


def test_an_evaluation_takes_the_firsts_checkpoint_too(monkeypatch, tmp_path):
    """The OUTPUT_DIR of this machine has no checkpoint."""
    _, checkpointer, _, _ = other_machine(monkeypatch, tmp_path, 1, [False, "", False], [1])
    monkeypatch.setattr(command, "build_model", lambda _: checkpointer.model)
    monkeypatch.setattr(command.Trainer, "test", lambda _, model: {"weight": model.weight.item()})
    keys = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "empty")]
    cfg = load_config(REPOSITORY / "configs/seg_topformer_t_synthetic.yaml", keys)
    cfg.MODEL.WEIGHTS = ""
    assert command.evaluate(cfg, resume=True) == {"weight": 8.0}


def resume_of_two_machines(folder):
    """Each process has an OUTPUT_DIR of its own, and is alone on its machine."""
    rank = comm.get_rank()
    groups = [distributed.new_group([each]) for each in (0, 1)]
    comm._LOCAL_PROCESS_GROUP = groups[rank]
    trainer, model = Trainer(), nn.Module()
    model.weight = nn.Parameter(torch.zeros(1))
    checkpointer = SafeCheckpointer(model, str(folder / str(rank)), trainer=trainer)
    with taking_firsts_checkpoint(checkpointer):
        checkpointer.resume_or_load("", resume=True)
    (folder / f"{rank}.txt").write_text(f"{trainer.iteration} {model.weight.item()}")


@pytest.mark.slow
def test_two_machines_go_on_from_the_same_checkpoint(tmp_path):
    save(tmp_path / "0", 8)
    save(tmp_path / "1", 3)
    launch(resume_of_two_machines, 2, device="cpu", args=(tmp_path,))
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["8 8.0"] * 2


def test_where_the_first_process_has_no_checkpoint_nobody_has(monkeypatch, tmp_path):
    save(tmp_path, 3)
    Others(monkeypatch, 1, [(False, ("", "")), False])
    checkpointer = SafeCheckpointer(nn.Identity(), str(tmp_path))
    with taking_firsts_checkpoint(checkpointer):
        assert not checkpointer.has_checkpoint()
    assert checkpointer.has_checkpoint()
