"""Runs on several machines, of which one is lost, stopped or added (tests/faults/machines)."""

import pytest
import torch

from tests.faults.machines import KINDS, difference
from topformer_d2.data.synthetic import write_synthetic


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
    assert trial(3, *machines, 1) == ""


def test_other_weights_are_a_difference(tmp_path):
    for name, value in (("one", 1.0), ("same", 1.0), ("other", 1.5)):
        weights = {"weight": torch.full((3,), value), "norm.running_mean": torch.rand(2)}
        (tmp_path / name).mkdir()
        torch.save({"model": weights}, tmp_path / name / "model_final.pth")
    expected = tmp_path / "one/model_final.pth"
    assert difference(expected, tmp_path / "same") == ""
    assert difference(expected, tmp_path / "other") == "1 of 1 tensors differ, by 0.5 at most"
    assert difference(expected, tmp_path) == "there is no model_final.pth"
