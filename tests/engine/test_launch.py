"""How launch starts the processes of a run, and what it raises; no process is started here."""

import os
import signal
import warnings
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import defaults
from detectron2.utils import comm
from torch import distributed, nn

from topformer_d2.engine import launch as launching
from topformer_d2.engine.failures import LOST_CONNECTION, LostProcessError
from topformer_d2.engine.groups import gathering_by
from topformer_d2.engine.launch import launch
from topformer_d2.errors import InputError, Terminated
from topformer_d2.modeling.sync_batch_norm import CpuSyncBatchNorm


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
        launch(print, 2, device="cuda", timeout=90.0, args=("a",))
    function, (within, args, _errors), processes = started.value.args
    assert (function, within, processes) == (launching._run, launching._within_limit, 2)
    assert args == (print, ("a",), 90.0)


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_objects_are_exchanged_within_the_time_out(monkeypatch, tmp_path, backend):
    """Also on GPUs, where Detectron2 makes a group of its own for them."""
    found = []

    def main(word):
        group = comm._get_global_gloo_group()
        options = group._get_backend(torch.device("cpu")).options
        found.append((word, options._timeout.total_seconds(), comm.all_gather(word)))

    before = comm._get_global_gloo_group
    limit = timedelta(seconds=77)
    distributed.init_process_group("gloo", f"file://{tmp_path}/m", limit, rank=0, world_size=1)
    try:
        monkeypatch.setattr(distributed, "get_backend", lambda *_: backend)
        launching._within_limit(main, ("a",), 90.0)
    finally:
        distributed.destroy_process_group()
    assert found == [("a", 77.0 if backend == "gloo" else 90.0, ["a"])]
    assert comm._get_global_gloo_group is before


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


@pytest.mark.parametrize(
    ("error", "status", "is_told"),
    [
        (InputError("the image is damaged"), 1, True),
        (OSError("the disk is full"), 1, True),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, True),
        (RuntimeError("a fault of the program"), 1, False),
        (KeyboardInterrupt(), 128 + signal.SIGINT, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_process_ends_with_its_error(monkeypatch, capfd, error, status, is_told):
    def fail(_rank, *_args):
        raise error

    told, handlers = [], {}
    monkeypatch.setattr(launching.os, "setpgrp", lambda: None)
    monkeypatch.setattr(launching.signal, "signal", handlers.__setitem__)
    with pytest.raises(SystemExit) as end:
        launching._run(1, fail, ("a",), SimpleNamespace(put=told.append))
    assert end.value.code == status and told == [error] * is_told
    # The one that started it tells an error that it is given; of another one there is this alone.
    assert ("a fault of the program" in capfd.readouterr().err) == (type(error) is RuntimeError)
    assert handlers == {signal.SIGINT: signal.default_int_handler}


def test_a_process_joins_before_its_work_and_leaves_after_it(monkeypatch, tmp_path):
    found = []

    def main(word):
        found.append((word, comm.get_world_size(), comm.get_local_size(), distributed.get_rank()))

    monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", None)
    threads = torch.get_num_threads()
    launching._join(0, 1, f"file://{tmp_path}/meeting", main, ("a",))
    assert found == [("a", 1, 1, 0)] and not distributed.is_initialized()
    assert torch.get_num_threads() == threads


def test_threads_are_shared_by_the_processes(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(distributed, name, lambda *_, **__: None)
    monkeypatch.setattr(distributed, "group", SimpleNamespace(WORLD=None))
    monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", None)
    for processes in (2, 9):
        launching._join(0, processes, "file:///meeting", lambda: None, ())
    assert asked == [3, 1]


class Process:
    """A process that ends when it is told so, by one of the words of `ends_by`."""

    def __init__(self, exitcode=None, ends_by=(), ended_as=-15):
        self.sentinel, self._end = os.pipe()
        self.exitcode, self.pid, self.told = exitcode, self.sentinel, []
        self._ends_by, self._ended_as = ends_by, ended_as
        if exitcode is not None:
            os.close(self._end)

    def is_alive(self):
        return self.exitcode is None

    def join(self):
        os.close(self.sentinel)

    def tell(self, word):
        self.told.append(word)
        if word in self._ends_by and self.exitcode is None:
            self.exitcode = self._ended_as
            os.close(self._end)

    def terminate(self):
        self.tell("terminate")

    def kill(self):
        self.tell("kill")


@pytest.mark.parametrize(
    ("processes", "cause", "told"),
    [
        ([(0, ()), (0, ())], None, [[], []]),
        ([(0, ()), (3, ())], 1, [[], []]),
        ([(LOST_CONNECTION, ()), (3, ())], 1, [[], []]),
        ([(LOST_CONNECTION, ()), (0, ())], 0, [[], []]),
        ([(None, ("terminate",)), (3, ())], 1, [["terminate"], []]),
        ([(3, ()), (None, ("kill",))], 0, [[], ["terminate", "kill"]]),
    ],
)
def test_where_one_has_failed_the_others_are_ended(monkeypatch, processes, cause, told):
    monkeypatch.setattr(launching, "_GRACE", 0.05)
    started = [Process(*each) for each in processes]
    assert launching._wait_for_all(started) == cause
    assert [each.told for each in started] == told
    assert not any(each.is_alive() for each in started)


def test_each_interruption_is_stronger_than_the_one_before(monkeypatch):
    """A process that still imports, outside of its own group, would not survive a Ctrl-C."""
    sent, interruptions = [], [KeyboardInterrupt, KeyboardInterrupt]

    def wait(_processes):
        if interruptions:
            raise interruptions.pop()

    works, starts = Process(), Process()
    monkeypatch.setattr(launching.os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(launching.os, "getpgid", lambda pid: works.pid)
    monkeypatch.setattr(launching, "_wait_for_all", wait)
    launching._interrupt([works, starts, Process(exitcode=0)])
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    assert [number for pid, number in sent if pid == works.pid] == [*numbers]
    assert [number for pid, number in sent if pid == starts.pid] == [signal.SIGTERM] * 3
    assert len(sent) == 6


def test_the_status_of_a_process_that_has_failed_is_raised(monkeypatch):
    processes = [SimpleNamespace(exitcode=0, pid=11), SimpleNamespace(exitcode=5, pid=12)]
    started = SimpleNamespace(processes=processes)
    monkeypatch.setattr(launching, "_start_processes", lambda *_, **__: started)
    monkeypatch.setattr(launching, "_wait_for_all", lambda _: 1)
    with pytest.raises(torch.multiprocessing.ProcessExitedException) as found:
        launch(print, 2, device="cpu")
    error = found.value
    assert (error.error_index, error.error_pid, error.exit_code) == (1, 12, 5)


def test_a_model_on_the_cpu_is_wrapped_for_several_processes(monkeypatch):
    detectron2s = defaults.create_ddp_model
    for device, size, is_ours in (("cpu", 1, False), ("cuda", 2, False), ("cpu", 2, True)):
        monkeypatch.setattr(comm, "get_world_size", lambda size=size: size)
        with launching.wrapping_for_device(device):
            wrap = defaults.create_ddp_model
            assert (wrap is detectron2s) is not is_ours
        assert defaults.create_ddp_model is detectron2s
    wrapped = []
    monkeypatch.setattr(
        launching, "DistributedDataParallel", lambda *args, **keys: wrapped.append((*args, keys))
    )
    model = nn.Sequential(nn.SyncBatchNorm(4))
    wrap(model, broadcast_buffers=False)
    # Or gradients would be summed in another order after the first iteration.
    keys = {"find_unused_parameters": True, "broadcast_buffers": False}
    assert wrapped == [(model, keys)] and isinstance(model[0], CpuSyncBatchNorm)


def test_pytorchs_warnings_about_detectron2s_calls_are_not_shown():
    texts = ["`broadcast_buffers` is deprecated. Use another", "broadcast_buffers is another one"]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with gathering_by(None):
            for text in texts:
                warnings.warn(text, FutureWarning, stacklevel=1)
    assert [str(each.message) for each in shown] == texts[1:]
