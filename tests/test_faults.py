"""The harness of tests/faults finds the faults that it is there to find."""

import os
import random
import signal
import sys
import time

import pytest

from tests.faults.child import Outcome, Task, run
from tests.faults.hostile import _judged
from tests.faults.kills import _content
from tests.faults.mutations import hostile_json, mutate_bytes
from tests.faults.plan import rows
from tests.faults.report import MachineRow, as_page, section_of, write_section
from topformer_d2.errors import InputError, show_input_errors
from topformer_d2.inference.allocator import keep_freed_memory


def refuse():
    with show_input_errors():
        raise InputError("x.png cannot be read")


def fail_inside():
    raise KeyError("x")


def hang():
    time.sleep(60)


def take_memory():
    taken = bytearray(b"x") * (300 * 2**20)
    time.sleep(60)
    return len(taken)


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (refuse, ""),
        (lambda: print("1 of 1 images done"), ""),
        (fail_inside, "traceback: KeyError: 'x'"),
        (hang, "more time"),
        (take_memory, "more memory"),
        (lambda: sys.exit(3), "status 3 without a message"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "died of SIGTERM"),
    ],
)
def test_how_a_process_ended(act, found):
    seconds = 0.5 if act is hang else 120
    _, wrong = run(Task(act, Outcome.fault, seconds=seconds, memory=100))
    assert found in wrong and bool(found) == bool(wrong)


def test_memory_that_the_parent_has_kept_counts():
    def keep_and_start():
        keep_freed_memory(training=True)
        bytearray(b"x") * (500 * 2**20)  # taken and freed at once
        print(run(Task(take_memory, Outcome.fault, memory=100))[1])

    outcome, _ = run(Task(keep_and_start, Outcome.fault))
    assert "more memory" in outcome.output


def test_code_that_runs_and_files_that_are_left_are_found(tmp_path):
    assert run(_judged(refuse, tmp_path))[1] == ""
    (tmp_path / ".x.png.1-00000000.partial").touch()
    assert "left behind" in run(_judged(refuse, tmp_path))[1]
    assert "code was run" in run(_judged((tmp_path / "canary").touch, tmp_path))[1]


def test_a_kill_on_purpose_and_a_full_disk(tmp_path):
    outcome, _ = run(Task(hang, Outcome.fault, kill_after=0.2))
    assert outcome.stopped == "kill" and outcome.seconds < 50

    def write():
        with show_input_errors(), open(tmp_path / "x", "wb") as f:
            f.write(bytes(5000))
            f.flush()

    outcome, wrong = run(Task(write, Outcome.fault, file_size=1000))
    assert outcome.status == 1 and wrong == ""


def test_half_files_differ(tmp_path):
    (tmp_path / "x").write_bytes(b"whole")
    whole = _content(tmp_path)
    (tmp_path / ".lock").touch()
    assert _content(tmp_path) == whole
    (tmp_path / "x").write_bytes(b"half")
    assert _content(tmp_path) != whole


def test_a_seed_gives_the_same_file():
    content = bytes(range(256)) * 4
    values = {"a": [1, {"b": "c"}], "d": None}
    for seed in range(50):
        one, other = (mutate_bytes(content, random.Random(seed)) for _ in range(2))
        assert one == other
        one, other = (hostile_json(values, random.Random(seed)) for _ in range(2))
        assert one == other
    assert len({mutate_bytes(content, random.Random(seed)) for seed in range(50)}) > 40


def test_the_page_counts_faults():
    table = rows()
    row = table["hostile: image"]
    row.tries, row.faults = 3, ["traceback"]
    page = as_page(list(table.values()), "python -m tests.faults")
    assert "0 kills, 0 full disks and 3 hostile files: 1 fault." in page
    assert f"| {row.kind}" in page and "python -m tests.faults" in page


def test_the_section_of_several_machines_is_written_anew_and_kept(tmp_path):
    page = tmp_path / "reliability.md"
    whole = as_page(list(rows().values()), "python -m tests.faults")
    page.write_text(whole)
    row = MachineRow("machines: one is killed", "it goes on", "engine/test_restarts.py", tries=2)
    for command in ("first command", "second command"):
        section = write_section([row], command, str(page))
        assert page.read_text() == whole + section and command in section
    assert section_of(page.read_text()) == section and "| machines: one is killed" in section
    assert section_of(whole) == ""
