"""Hooks on their own: the bar on a terminal, charts, and what a state or a log may hold."""

import errno
import io
import logging
import signal
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from torch import nn

from topformer_d2.engine import hooks
from topformer_d2.engine import setup as run_setup
from topformer_d2.engine.failures import describe_death, naming_folder
from topformer_d2.engine.hooks import KeepLossNormalizer, ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("piped", [(), ("stdout",), ("stderr",)])
def test_a_bar_is_for_a_terminal(monkeypatch, piped):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(hooks.sys, name, io.StringIO() if name in piped else Terminal())
    assert ProgressBar.wanted() == (not piped)


def test_the_bar_shows_losses_and_lines_go_above_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(hooks.sys, "stderr", terminal)
    events, other = (logging.getLogger(f"detectron2.{name}") for name in ("utils.events", "data"))
    handler = logging.StreamHandler(terminal)
    detectron2 = logging.getLogger("detectron2")
    monkeypatch.setattr(detectron2, "handlers", [handler])
    monkeypatch.setattr(detectron2, "level", logging.INFO)
    for logger in (events, other):
        monkeypatch.setattr(logger, "level", logging.INFO)
        monkeypatch.setattr(logger, "handlers", [])
    bar = ProgressBar()
    bar.trainer = SimpleNamespace(max_iter=6, start_iter=4)
    bar.before_train()
    with EventStorage(4) as bar.trainer.storage:
        bar.trainer.storage.put_scalars(loss_sem_seg=0.25, lr=0.5)
        bar.after_step()
        bar.after_step()
    events.info("iter 5 total_loss 0.25")
    other.info("a line of the data")
    bar.after_train()
    assert detectron2.handlers == [handler]  # as it was
    shown = terminal.getvalue()
    assert "6/6" in shown and "sem_seg=0.250" in shown and "lr" not in shown
    assert "a line of the data" in shown and "iter 5" not in shown
    ProgressBar().after_train()  # a training that has not begun


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_normaliser_that_cannot_be_is_refused(value):
    model = nn.Linear(1, 1)
    hook = KeepLossNormalizer(SimpleNamespace(model=model))
    assert hook.state_dict() == {"loss_normalizer": None}
    hook.load_state_dict({"loss_normalizer": None})
    assert not hasattr(model, "loss_normalizer")
    hook.load_state_dict({"loss_normalizer": 73.5})
    with pytest.raises(ValueError, match="loss_normalizer"):
        hook.load_state_dict({"loss_normalizer": value})
    assert hook.state_dict() == {"loss_normalizer": 73.5}


def test_a_chart_that_cannot_be_drawn_ends_nothing(no_charts, tmp_path, caplog):
    (tmp_path / "metrics.json").write_text("damaged")
    no_charts("no_such_chart", str(tmp_path))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(tmp_path) in record.getMessage()
    assert "AttributeError" in record.getMessage()


@pytest.mark.parametrize(
    ("code", "name", "status"),
    [
        (-signal.SIGKILL, "SIGKILL", 137),
        (-signal.SIGSEGV, "SIGSEGV", 139),
        (-200, "signal 200", 328),
    ],
)
def test_the_signal_that_has_ended_a_process_is_named(code, name, status):
    message, given = describe_death(3, code)
    assert f"process 3 was ended by {name}" in message and given == status
    assert ("memory" in message) == (name == "SIGKILL")


@pytest.mark.parametrize(
    ("error", "file"),
    [
        (OSError(errno.ENOSPC, "No space left"), "out"),
        (OSError(errno.ENOSPC, "No space left", "a.json"), "a.json"),
        (OSError("of a library"), None),
    ],
)
def test_an_error_without_a_file_names_the_folder(error, file):
    with pytest.raises(OSError) as found, naming_folder("out"):
        raise error
    assert found.value.filename == file and found.value.errno == error.errno


def test_a_log_that_cannot_be_written_is_told_once(capsys):
    class Full(io.StringIO):
        name = "out/log.txt"

        def write(self, _text):
            raise OSError(errno.ENOSPC, "No space left on device")

    handler = logging.StreamHandler(Full())
    run_setup._keep_quiet(handler)
    for _ in range(3):
        handler.emit(logging.makeLogRecord({"msg": "a line"}))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "out/log.txt" in told[0] and "No space left" in told[0]


def test_lines_that_were_held_are_shown_where_the_setup_fails(monkeypatch):
    shown = []
    logger = logging.getLogger("topformer_d2")
    monkeypatch.setattr(logger, "handle", shown.append)
    monkeypatch.setattr(logger, "hasHandlers", lambda: False)
    record = logging.makeLogRecord({"name": "topformer_d2", "msg": "a warning"})

    def hold(fails):
        with run_setup._holding_lines():
            holder = logger.handlers[-1]
            holder.emit(record)
            if fails:
                raise ValueError

    hold(fails=False)
    assert shown == []
    with pytest.raises(ValueError):
        hold(fails=True)
    assert shown == [record]
