"""What is refused before a process is started."""

from unittest.mock import Mock

import pytest

from topformer_d2.engine import Trainer, launch, setup_run
from topformer_d2.engine.processes import check_processes, check_single_run
from topformer_d2.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-3,), "number of GPUs is -3; it takes 0 or more"),
        ((99,), r"number of GPUs is 99, but this machine has \d"),
        ((1, 0), "number of machines is 0"),
        ((1, 2, 2), "rank is 2; of 2 machines it takes 0 to 1"),
        ((1, 1, -1), "rank is -1"),
        ((1, 2), "several machines need GPUs"),
        ((0, 2), "several machines need GPUs"),
        ((99999999, 1, 0, "cpu"), r"on the CPU is 99999999; .* at most \d+"),
    ],
)
def test_numbers_that_cannot_be(monkeypatch, arguments, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        check_processes(*arguments)


def test_no_gpu_is_one_process():
    assert check_processes(0) == check_processes(1) == 1


def test_a_few_processes_on_the_cpu_run_anywhere(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert check_processes(4, device="cpu") == 4


def test_processes_of_torchrun_that_have_not_joined(tiny_config, monkeypatch):
    cfg = tiny_config()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for start in (check_single_run, lambda: setup_run(cfg), lambda: Trainer(cfg)):
        with pytest.raises(InputError, match=r"WORLD_SIZE='2'.*has not joined"):
            start()
    monkeypatch.setattr("topformer_d2.engine.processes.comm.get_world_size", lambda: 2)
    check_single_run()  # they have joined
    monkeypatch.undo()
    for alone in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", alone)
        check_single_run()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="'two'"):
        check_single_run()


def test_a_config_changed_in_a_program_is_checked_again(tiny_config):
    cfg = tiny_config()
    cfg.SOLVER.WARMUP_ITERS = -1
    for start in (setup_run, Trainer):
        with pytest.raises(InputError, match="WARMUP_ITERS is -1"):
            start(cfg)


def test_a_process_ends_after_the_one_that_started_it(monkeypatch):
    ended = []
    monkeypatch.setattr(launch, "_GRACE", 0)
    monkeypatch.setattr(launch.os, "_exit", ended.append)
    launch._end_after_parent()  # this process was not started by one
    monkeypatch.setattr(launch.multiprocessing, "parent_process", lambda: Mock())
    launch._end_after_parent()
    assert ended == [1]
