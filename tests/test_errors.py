"""What the tools print instead of a traceback."""

import logging
import os
import signal

import pytest

from tests.helpers import REPOSITORY
from topformer_d2.errors import (
    InputError,
    Terminated,
    cut,
    did_you_mean,
    shortened,
    show_input_errors,
    shown,
)
from topformer_d2.files import folder_beside
from topformer_d2.logs import get_logger


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (InputError("a.png cannot be read"), 1, "error: a.png cannot be read\n"),
        # As a loader's worker passes it on.
        (InputError("Caught\nTraceback\nx.InputError: a.png: no\n"), 1, "error: a.png: no\n"),
        (
            OSError(28, "No space left on device", "a.pth"),
            1,
            "error: a.pth: No space left on device\n",
        ),
        (MemoryError(), 1, "error: not enough memory"),
        (InputError("\x1b[2J\u202e\udcff"), 1, "error: \\x1b[2J\\u202e\\udcff\n"),
        (InputError("a\nerror: b"), 1, "error: a\n  error: b\n"),
        (Terminated(), 143, "terminated\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["input", "worker", "disk", "memory", "escapes", "lines", "SIGTERM", "Ctrl-C"],
)
def test_one_message_and_a_status(capsys, error, status, printed):
    with pytest.raises(SystemExit) as stop, show_input_errors():
        raise error
    assert stop.value.code == status
    assert capsys.readouterr().err.startswith(printed)


def test_sigterm_leaves_nothing_half_done(tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop, show_input_errors(), folder_beside(tmp_path / "x.onnx"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.value.code, capsys.readouterr().err) == (143, "terminated\n")
    assert not list(tmp_path.iterdir()) and signal.getsignal(signal.SIGTERM) == before


def test_mistakes_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), show_input_errors():
        raise ZeroDivisionError


def test_did_you_mean():
    assert did_you_mean("VARIENT", ["GATE", "VARIANT"]) == " (did you mean 'VARIANT'?)"
    assert did_you_mean("x", ["GATE"]) == ""


HOSTILE = "a\x1b[2J\u202e\udcff"
SHOWN = "a\\x1b[2J\\u202e\\udcff"


def test_a_path_in_a_line():
    assert shown(f"/x/{HOSTILE}\nerror: b") == f"/x/{SHOWN}\\nerror: b"


@pytest.mark.parametrize(
    ("value", "most", "expected"),
    [
        (3, 60, "3"),
        ("a\n", 60, "'a\\n'"),
        ([1, 2], 4, "[1, ..."),
        ({"a": HOSTILE}, 60, f"{{'a': {HOSTILE!r}}}"),
    ],
)
def test_a_value_in_a_message(value, most, expected):
    assert shortened(value, most) == expected


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        list(range(10**6)),
        dict.fromkeys(range(10**6)),
        10**4000,
        [[[["x"] * 99] * 99] * 99],
    ],
)
def test_a_long_value_is_shortened(value):
    assert 20 < len(shortened(value)) <= 203 and len(shortened(value, 30)) <= 33


def test_a_long_text_is_cut():
    assert cut("a\nb") == "a\\nb" and cut("\x1b" * 400) == "\\x1b" * 75 + "..."


@pytest.mark.parametrize("name", ["topformer_d2.test", "fvcore.common.checkpoint"])
def test_log_lines_do_not_control_the_terminal(caplog, name):
    get_logger("topformer_d2.test")
    logging.getLogger(name).addHandler(caplog.handler)
    try:
        logging.getLogger(name).warning("%s is %d", HOSTILE, 1)
    finally:
        logging.getLogger(name).removeHandler(caplog.handler)
    assert caplog.messages[0] == f"{SHOWN} is 1"


def test_every_logger_is_one_of_ours():
    """Else the name of a user's file would reach the terminal as it is."""
    for path in (REPOSITORY / "topformer_d2").rglob("*.py"):
        assert path.name == "logs.py" or "getLogger(__name__)" not in path.read_text(), path
