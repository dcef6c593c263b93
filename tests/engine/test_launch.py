"""How launch starts the processes of a run, and what it raises; no process is started here."""

import signal
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from topformer_d2.engine import launch as launching
from topformer_d2.engine.failures import LOST_CONNECTION, LostProcessError
from topformer_d2.engine.launch import launch
from topformer_d2.errors import InputError, Terminated


class Started(Exception):
    """Raised instead of starting processes, with the arguments."""


@pytest.mark.parametrize("name", ["spawn", "start_processes"])
def test_processes_end_in_launchs_way_whichever_function_detectron2_calls(monkeypatch, name):
    """`spawn` is v0.6's, and `start_processes` its main branch's."""

    def start(*args, **kwargs):
        raise Started(*args)

    def detectron2_launch(main, processes, *, args, **_):
        getattr(torch.multiprocessing, name)(main, nprocs=processes, args=args, daemon=False)

    monkeypatch.setattr(launching, "_start_processes", start)
    monkeypatch.setattr(launching, "engine", SimpleNamespace(launch=detectron2_launch))
    with pytest.raises(Started) as started:
        launch(print, 2, device="cuda", args=("a",))
    function, (main, args, _errors), processes = started.value.args
    assert (function, main, args, processes) == (launching._run, print, ("a",), 2)


@pytest.fixture
def interrupted(monkeypatch):
    """The processes that are told to end."""
    found = []
    monkeypatch.setattr(launching, "_interrupt", found.extend)
    return found


def test_sigterm_while_processes_are_started_reaches_all_of_them(monkeypatch, interrupted):
    def start(*_args, **_kwargs):
        signal.raise_signal(signal.SIGTERM)
        return SimpleNamespace(processes=["first", "last"])

    def terminate(*_):
        raise Terminated

    monkeypatch.setattr(launching, "_start_processes", start)
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated):
            launch(print, 2, device="cpu")
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)
    assert interrupted == ["first", "last"]


def test_an_error_during_an_interruption_is_raised(monkeypatch, interrupted):
    def start(_function, args, *_args, **_kwargs):
        args[-1].put(InputError("the disk is full"))
        return SimpleNamespace(processes=["only"])

    def wait(_processes):
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "_start_processes", start)
    monkeypatch.setattr(launching, "_wait_for_all", wait)
    with pytest.raises(InputError, match="the disk is full"):
        launch(print, 2, device="cpu")
    assert interrupted == ["only"]


@pytest.mark.parametrize(
    ("last", "raised"),
    [
        (LostProcessError("process 1: Connection closed by peer"), LostProcessError),
        (InputError("the image is damaged"), InputError),  # is why the first has lost it
    ],
)
def test_what_the_processes_have_met_is_raised(monkeypatch, last, raised):
    met = [LostProcessError("process 0: NCCL error in: a.cpp"), last]

    def start(_function, args, *_args, **_kwargs):
        for error in met:
            args[-1].put(error)
        failed = SimpleNamespace(exitcode=LOST_CONNECTION, pid=1)
        return SimpleNamespace(processes=[failed, failed])

    monkeypatch.setattr(launching, "_start_processes", start)
    monkeypatch.setattr(launching, "_wait_for_all", lambda _: 0)
    with pytest.raises(raised) as found:
        launch(print, 2, device="cpu")
    expected = met if raised is LostProcessError else [last]
    assert str(found.value).splitlines() == [str(error) for error in expected]


def test_a_process_that_has_lost_another_passes_its_error_on(monkeypatch):
    told = []

    def fail(_rank):
        raise distributed.DistBackendError("NCCL error in: a.cpp")

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(launching.os, "setpgrp", lambda: None)
    monkeypatch.setattr(launching.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        launching._run(0, fail, (), SimpleNamespace(put=told.append))
    assert end.value.code == LOST_CONNECTION
    assert [str(error) for error in told] == ["process 0: NCCL error in: a.cpp"]
