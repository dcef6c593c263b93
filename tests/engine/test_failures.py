"""What a training that fails says, keeps and goes on from."""

import errno
import logging
import os
import threading
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine.hooks import PeriodicWriter
from torch import distributed

from tests.engine.test_resume import options, run
from topformer_d2.checkpoint import read_state_dict
from topformer_d2.config import load_config
from topformer_d2.engine import Trainer, describe_death, setup, setup_run
from topformer_d2.engine.failures import (
    LostProcessError,
    as_lost_process,
    describe_lost,
    explain_failure,
    telling_of_threads,
)
from topformer_d2.engine.recovery import RecoveringTrainer
from topformer_d2.errors import InputError
from topformer_d2.files import locked_output


def fail_in_third(monkeypatch, make_loss):
    """Let the third call of the model give `make_loss(losses)`."""
    from topformer_d2.modeling import TopFormerSegmentor

    forward, calls = TopFormerSegmentor.forward, []

    def wrapped(self, batch):
        losses = forward(self, batch)
        calls.append(1)
        return make_loss(losses) if len(calls) == 3 else losses

    monkeypatch.setattr(TopFormerSegmentor, "forward", wrapped)


def out_of_memory(_):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize(
    ("make_loss", "named"),
    [
        (lambda losses: {k: v * float("nan") for k, v in losses.items()}, r"iteration 2.*nan.*LR"),
        (out_of_memory, r"memory in iteration 2.*ACCUMULATION_STEPS"),
    ],
    ids=["nan", "memory"],
)
def test_a_failed_iteration_is_undone_and_resume_is_exact(
    tiny_config, plain_run, tmp_path, monkeypatch, caplog, make_loss, named
):
    cut = tiny_config(*options(tmp_path, "5", "cut"), "SOLVER.CHECKPOINT_PERIOD", "1000")
    fail_in_third(monkeypatch, make_loss)
    with pytest.raises(InputError, match=named):
        run(cut)
    monkeypatch.undo()
    assert "Traceback" not in caplog.text
    saved = read_state_dict(str(tmp_path / "cut" / "model_0000001.pth"))["model"]
    assert all(torch.isfinite(value.float()).all() for value in saved.values())
    rest, resumed = run(cut, resume=True)
    assert rest == {i: plain_run.losses[i] for i in (2, 3, 4, 5)}
    assert all(torch.equal(value, resumed[key]) for key, value in plain_run.weights.items())


def test_a_training_that_fails_in_its_last_iteration_is_not_evaluated(tiny_config, monkeypatch):
    from topformer_d2.modeling import TopFormerSegmentor

    evaluated = []
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: evaluated.append(1))
    run(tiny_config("SOLVER.MAX_ITER", "1"))
    assert evaluated == [1]
    monkeypatch.setattr(TopFormerSegmentor, "forward", lambda _, batch: out_of_memory(batch))
    with pytest.raises(InputError, match="memory in iteration 0"):
        run(tiny_config("SOLVER.MAX_ITER", "1"))
    assert evaluated == [1]


@pytest.mark.parametrize(
    "error, is_logged", [(FloatingPointError(), False), (OSError(), False), (KeyError(), True)]
)
def test_detectron2_logs_tracebacks_of_mistakes_alone(error, is_logged):
    """Its main branch logs a loss that is not finite before the loop sees it."""
    loop = logging.getLogger("detectron2.engine.train_loop")
    keys = {"exc_info": (type(error), error, None)}
    assert bool(loop.filter(logging.makeLogRecord(keys))) == is_logged


def test_failures_that_the_user_can_fix_are_told():
    def told(error):
        return explain_failure(error, iteration=7, rate=0.01, folder="out")

    worker = RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")
    assert "pid 12" in told(worker) and "Killed" in told(worker) and "NUM_WORKERS" in told(worker)
    assert told(OSError(errno.ENOSPC, "No space left on device")).startswith("out: No space left")
    assert "memory" in told(MemoryError())
    assert told(ZeroDivisionError()) is None
    message, status = describe_death(1, -9)
    assert "process 1" in message and "SIGKILL" in message and "`resume`" in message
    assert status == 137


@pytest.mark.parametrize(("num_machines", "is_named"), [(1, False), (2, True)])
def test_another_machine_is_named_where_there_is_one(num_machines, is_named):
    message = describe_lost(LostProcessError("process 1: NCCL error in: a.cpp"), num_machines)
    assert "process 1: NCCL error in: a.cpp" in message and "`resume`" in message
    assert ("another machine" in message) == is_named


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error"), True),
        (RuntimeError("Connection closed by peer [127.0.0.1]"), True),
        (distributed.DistBackendError("NCCL error\nframe #0: c10::Error"), True),
        (distributed.DistBackendError(""), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (InputError("the page says Connection closed by peer"), False),
    ],
)
def test_what_tells_of_a_process_that_has_ended(monkeypatch, error, is_lost):
    assert as_lost_process(error) is None  # without other processes
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    lost = as_lost_process(error)
    assert (lost is not None) == is_lost
    if lost is not None:  # its first line is passed on, once
        line = (str(error) or "DistBackendError").splitlines()[0]
        assert str(lost) == f"process 0: {line}" and as_lost_process(lost) is lost


def test_a_trainer_logs_by_what_it_has_lost_another_process(monkeypatch, caplog):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    logger = logging.getLogger("topformer_d2")
    monkeypatch.setattr(logger, "propagate", True)
    error = distributed.DistBackendError("NCCL error in: a.cpp")
    with pytest.raises(LostProcessError, match=r"process 0: NCCL error in: a\.cpp"):
        RecoveringTrainer._end_where_lost(SimpleNamespace(iter=3), error, lambda: "It is kept")
    assert "iteration 3 (process 0: NCCL error in: a.cpp). It is kept" in caplog.text


def test_a_full_disk_keeps_the_checkpoint_before(tiny_config, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    cfg = tiny_config(*options(tmp_path, "5", "full"), "SOLVER.CHECKPOINT_PERIOD", "2")
    save, saved = torch.save, []

    def save_once(content, file):
        saved.append(1)
        return save(content, file) if len(saved) == 1 else fail()

    monkeypatch.setattr(torch, "save", save_once)
    with pytest.raises(InputError, match=r"No space left.*`resume` goes on from.*model_0000001"):
        run(cfg)
    monkeypatch.undo()
    names = os.listdir(cfg.OUTPUT_DIR)
    assert not [name for name in names if name.endswith(".partial")]
    assert [name for name in names if name.endswith(".pth")] == ["model_0000001.pth"]


def test_an_output_dir_on_a_full_disk_is_named(tiny_config, tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(setup, "_set_up_loggers", write)
    with monkeypatch.context() as full, pytest.raises(OSError, match="No space left") as failed:
        full.setattr(os, "write", write)
        with locked_output(tmp_path / "output", "training"):  # holds all the same
            setup_run(tiny_config())
    assert failed.value.filename == str(tmp_path / "output")


@pytest.mark.parametrize("folder", ["http://host/a", "unknown://host/a"])
def test_an_output_dir_that_nothing_here_can_write(tiny_config, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"OUTPUT_DIR is {folder}"):
        setup_run(tiny_config("OUTPUT_DIR", folder))
    assert not list(tmp_path.iterdir())


def test_two_trainings_in_one_folder(tiny_config, tmp_path):
    cfg = tiny_config(*options(tmp_path, "5", "run"), "SOLVER.MAX_ITER", "1")
    run(cfg)
    with locked_output(cfg.OUTPUT_DIR, "x"):  # it was released, and may be nested
        run(cfg)


def test_an_earlier_run_in_the_folder_is_named(tiny_config, tmp_path, caplog):
    cfg = tiny_config(*options(tmp_path, "5", "run"), "SOLVER.MAX_ITER", "1")
    run(cfg)
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        logging.getLogger("topformer_d2").propagate = True
        Trainer(cfg).resume_or_load(resume=False)
    assert "model_final.pth" in caplog.text and "resuming" in caplog.text


def test_config_yaml_is_that_of_the_checkpoints(tiny_config, tmp_path):
    options_of_run = [*options(tmp_path, "5", "run"), "SOLVER.MAX_ITER", "1"]
    run(tiny_config(*options_of_run))
    file = tmp_path / "run/config.yaml"
    kept = file.read_text()
    other = tiny_config(*options_of_run, "MODEL.TOPFORMER.VARIANT", "small")
    setup_run(other)
    other.DATASETS.TEST = ("synthetic_sem_seg_val",)
    setup_run(other, Namespace(config_file="", eval_only=True))
    with pytest.raises(InputError, match="tensors"):
        Trainer(other).resume_or_load(resume=True)
    assert file.read_text() == kept and "VARIANT: tiny" in kept
    run(other)
    assert load_config(str(file)).MODEL.TOPFORMER.VARIANT == "small"


def test_each_run_has_its_own_log(tiny_config, tmp_path):
    for name in ("a", "b"):
        setup_run(tiny_config("OUTPUT_DIR", str(tmp_path / name)))
        logging.getLogger("topformer_d2").info("line of %s", name)
    texts = [(tmp_path / name / "log.txt").read_text() for name in ("a", "b")]
    assert [("line of a" in t, "line of b" in t) for t in texts] == [(True, False), (False, True)]


def test_a_thread_that_cannot_write_leaves_one_line(caplog, monkeypatch):
    def fail(error):
        raise error

    others = []
    before = others.append
    monkeypatch.setattr(threading, "excepthook", before)
    with telling_of_threads():
        for error in (OSError(errno.ENOSPC, "No space left on device"), KeyError("x")):
            thread = threading.Thread(target=fail, args=(error,), name="writer")
            thread.start()
            thread.join()
    assert threading.excepthook == before
    (message,) = (r.getMessage() for r in caplog.records)
    assert message.startswith("writer has stopped writing: ") and "No space left" in message
    assert [args.exc_type for args in others] == [KeyError]  # a mistake keeps its traceback


def test_a_full_disk_without_a_file_is_named(tiny_config, monkeypatch):
    cfg = tiny_config("SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()")

    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PeriodicWriter, "after_train", full)
    with pytest.raises(OSError) as raised:
        Trainer(cfg).train()
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == cfg.OUTPUT_DIR
