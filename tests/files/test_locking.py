"""One process writes into an output folder at a time."""

import os
import signal
import threading
import time

import pytest

from topformer_d2.errors import InputError
from topformer_d2.files import locked_output


def hold(folder, told):
    """Hold the lock, fork a child that outlives it as a loader's worker may, and wait to be killed.

    Called in a process of its own, which is forked, as importing PyTorch anew takes seconds.
    """
    os.setsid()
    with locked_output(folder, "training"):
        if os.fork():
            os.write(told, b"x")
        time.sleep(60)


def test_another_process_is_refused_and_told_who_holds_it_until_that_is_killed(tmp_path):
    reading, told = os.pipe()
    holder = os.fork()
    if not holder:
        try:
            hold(tmp_path, told)
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"x"
        who = rf"process {holder} on .*, training since"
        with pytest.raises(InputError, match=who), locked_output(tmp_path, "evaluation"):
            pass
        threading.Timer(0.2, os.kill, (holder, signal.SIGKILL)).start()
        start = time.monotonic()
        with locked_output(tmp_path, "evaluation", wait=300):
            assert 0.1 < time.monotonic() - start < 50
        assert os.waitpid(holder, 0)[1] == signal.SIGKILL
        with locked_output(tmp_path, "evaluation"):
            pass
    finally:
        os.killpg(holder, signal.SIGKILL)


def test_a_process_may_nest_and_take_it_again(tmp_path):
    folder = tmp_path / "new"
    for _ in range(2):
        with locked_output(folder, "training"), locked_output(str(folder), "evaluation"):
            assert os.listdir(folder) == [".lock"]
        assert not folder.exists()  # nothing was written to it


def test_what_was_written_stays_and_the_lock_does_not(tmp_path):
    with locked_output(tmp_path / "a/b", "training"):
        (tmp_path / "a/kept").touch()
    assert os.listdir(tmp_path / "a") == ["kept"]


def test_a_link_named_as_the_lock_is_not_followed(tmp_path):
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError), locked_output(tmp_path / "run", "training"):
        pass
    assert (tmp_path / "outside").read_text() == "kept"


def test_threads_of_one_process_share_it(tmp_path):
    def hold():
        with locked_output(tmp_path, "training"):
            pass

    with locked_output(tmp_path, "training"):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
