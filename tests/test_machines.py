"""Runs on several machines, of which one is lost, stopped or added (tests/faults/machines)."""

import re
import signal
import subprocess

import pytest
import torch

from tests.faults.cluster import hit, iteration_of
from tests.faults.machines import KINDS, Hits, difference
from tests.faults.report import MachineRow, write_section
from topformer_d2.data.synthetic import write_synthetic

# In one process, as they share runs that nothing happens to.
pytestmark = pytest.mark.xdist_group("machines")


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """Folders of what the machines write, and of their datasets."""
    folder = tmp_path_factory.mktemp("machines")
    write_synthetic(str(folder / "data"), num_train=12, num_val=2, size=(64, 80))
    return folder, folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on(machines, kind):
    trial, _ = KINDS[kind]
    wrong, hits = trial(3, *machines, 1)
    assert wrong == ""
    assert len(hits.iterations) == 1 and hits.at_start == 0


START = "Rank of current process: 0. World size: 4\n"
TRAINS = "Starting training from iteration {}\n"
SAVED = "Saving checkpoint to run/model_{:07d}.pth\n"


@pytest.mark.parametrize(
    ("log", "iteration"),
    [
        ("", None),
        (START, None),
        (START + TRAINS.format(0), 0),
        (START + TRAINS.format(0) + SAVED.format(3) + SAVED.format(7), 8),
        (START + TRAINS.format(0) + SAVED.format(7) + START, None),  # starts again
        (START + TRAINS.format(0) + SAVED.format(7) + START + TRAINS.format(8), 8),
        (START + TRAINS.format(8) + "Saving checkpoint to run/model_final.pth\n", None),
    ],
)
def test_the_iteration_that_a_run_has_reached(log, iteration):
    assert iteration_of(log) == iteration


def test_a_hit_counts_in_training_once_for_each_start():
    hits = Hits()
    log = START + TRAINS.format(0) + SAVED.format(3)
    hits.note(log)
    hits.note(log)  # while the others end because of the first
    assert (hits.iterations, hits.at_start) == ([4], 1)
    assert "after the hit at iteration 4" in hits.what_is_wrong(log)
    log += START + TRAINS.format(4)
    assert hits.what_is_wrong(log) == ""
    hits.note(log + SAVED.format(7))
    assert (hits.iterations, hits.at_start) == ([4, 8], 1)


def test_only_a_process_that_is_alive_is_hit():
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert hit(process.pid)
        assert not hit(process.pid)  # nobody has waited for it yet
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not hit(process.pid)


def test_the_page_has_what_was_hit():
    row = MachineRow("a process is killed", "it goes on", "a.py", tries=2, iterations=[4, 17])
    row.at_start, row.by_hand = 3, 1
    section = write_section([row], "python -m a", None)
    cells = "a process is killed|2|2|4, 17|3|1|it goes on|0|a.py"
    assert cells in re.sub(r" *\| *", "|", section)


def test_other_weights_are_a_difference(tmp_path):
    for name, value in (("one", 1.0), ("same", 1.0), ("other", 1.5)):
        weights = {"weight": torch.full((3,), value), "norm.running_mean": torch.rand(2)}
        (tmp_path / name).mkdir()
        torch.save({"model": weights}, tmp_path / name / "model_final.pth")
    expected = tmp_path / "one/model_final.pth"
    assert difference(expected, tmp_path / "same") == ""
    assert difference(expected, tmp_path / "other") == "1 of 1 tensors differ, by 0.5 at most"
    assert difference(expected, tmp_path) == "there is no model_final.pth"
