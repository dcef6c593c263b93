"""`topformer analyze lr`: the rates, what they suggest, and that nothing else is written."""

import math

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import topformer
from topformer_d2.analysis.lr_sweep import build_sweep, draw_sweep, format_sweep, sweep_rates
from topformer_d2.engine.train_loop import AccumulatingTrainer
from topformer_d2.errors import InputError

CONFIG = ["--config-file", "configs/seg_topformer_t_synthetic.yaml"]
SMALL = ["INPUT.CROP.SIZE", "[64, 64]", "SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "0"]


class Bowl(nn.Module):
    """w^2 / 2 from w = 1: a step of gradient descent makes w (1 - rate) w."""

    def __init__(self, offset=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.offset = offset

    def forward(self, batch):
        return {"loss": (self.w**2 / 2).sum() + self.offset}


def sweep(module, low, high, iterations, lr=1.0):
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    step = AccumulatingTrainer(module, [[{}]] * iterations, optimizer, num_parts=1)
    return sweep_rates(step, 1.0, low=low, high=high, iterations=iterations)


def test_losses_are_those_of_rising_rates():
    found = sweep(Bowl(), 1.1e-3, 100.0, 41)
    rates = np.geomspace(1.1e-3, 100, 41)
    w = np.cumprod([1.0, *(1 - rates[:-1])])[: len(found.rates)]
    assert found.rates == pytest.approx(rates[: len(found.rates)])
    # The loss is told of the weights before the update.
    assert found.losses == pytest.approx(w**2 / 2, rel=1e-6)
    # Above a rate of 2 the loss grows, from almost nothing, until it ends the sweep.
    assert found.ended_early and 2 < found.rates[-1] < 100 and found.losses[-1] > 1.5
    assert 2e-3 < found.suggested < found.lowest < 4
    text = format_sweep(found, batch_scale=4.0)
    assert f"SOLVER.BASE_LR {found.suggested / 4:.2g}" in text and "leaves the range" in text
    assert len([line for line in text.splitlines() if "e-0" in line or "e+0" in line]) >= 20


def test_groups_keep_their_ratio():
    module = Bowl()
    found = sweep(module, 1e-2, 1e-1, 20, lr=10.0)  # as HEAD_LR_FACTOR 10 of BASE_LR 1
    expected = np.cumprod([1.0, *(1 - 10 * np.geomspace(1e-2, 1e-1, 20)[:-1])]) ** 2 / 2
    assert found.losses == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_loss_that_falls_nowhere_suggests_nothing():
    found = sweep(Bowl(), 2.01, 2.1, 20)
    assert found.suggested is None
    assert "falls at none" in format_sweep(found)
    assert draw_sweep(found, "title").shape[2] == 3


@pytest.mark.parametrize(
    ("module", "low", "high", "iterations", "named"),
    [
        (Bowl(), 0.1, 0.01, 20, "`low` is 0.1 and `high` 0.01"),
        (Bowl(), 0.0, 1.0, 20, "`low`"),
        (Bowl(), 0.1, math.inf, 20, "`high`"),
        (Bowl(), 0.1, 1.0, 19, "`iterations` is 19"),
        (Bowl(math.nan), 0.1, 1.0, 20, "lower `low`"),
    ],
)
def test_what_cannot_be_swept(module, low, high, iterations, named):
    with pytest.raises(InputError, match=named):
        sweep(module, low, high, iterations)


def test_the_command_leaves_output_dir_alone(tmp_path):
    checkpoint = tmp_path / "model_0000001.pth"
    checkpoint.write_bytes(b"kept")
    result = topformer(
        *("analyze", "lr", *CONFIG, "--iterations", 20, "--low", 1e-4, *SMALL),
        *("OUTPUT_DIR", tmp_path),
    )
    assert result.returncode == 0, result.stderr
    assert "Suggested: SOLVER.BASE_LR " in result.stdout and "1.00e-04" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.name, "lr_sweep.png"}
    assert checkpoint.read_bytes() == b"kept"
    assert cv2.imread(str(tmp_path / "lr_sweep.png")).std() > 1


def test_weights_of_classes_are_computed(tiny_config):
    step, _ = build_sweep(tiny_config("MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM", "inverse_log"))
    weights = step.model.sem_seg_head.loss.class_weights
    assert len(weights) == 6 and weights.std() > 0


def test_what_is_wrong_is_said_in_options(tmp_path):
    result = topformer("analyze", "lr", *CONFIG, "--low", 2, *SMALL, "OUTPUT_DIR", tmp_path)
    assert result.returncode == 1 and "--low is 2 and --high 1" in result.stderr
    assert not list(tmp_path.iterdir())
