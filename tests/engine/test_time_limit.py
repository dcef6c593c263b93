"""SOLVER.MAX_TIME: training saves and stops, and goes on exactly."""

import itertools
import re

import pytest
import torch

from tests.engine.test_resume import options, run
from tests.helpers import topformer
from topformer_d2.config.rules import seconds_of
from topformer_d2.engine import StopRequested, Trainer, stopping

CONFIG = ["--config-file", "configs/seg_topformer_t_synthetic.yaml"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90m", 5400), ("1h30m", 5400), ("2d", 172_800), ("1.5h", 5400), ("7s", 7)),
        *((text, 0) for text in ("", "m", "90", "1h 30m", "30m1h", "-1h", "1e3s", "\u0661s", 5)),
    ],
)
def test_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.slow
def test_it_stops_and_goes_on_exactly(tiny_config, plain_run, tmp_path, monkeypatch):

    class Clock:
        """Another hour each time it is read: at the start, and after each iteration."""

        monotonic = staticmethod(map((3600.0).__mul__, itertools.count()).__next__)

    monkeypatch.setattr(stopping, "time", Clock)
    cfg = tiny_config(*options(tmp_path, "5", "cut"), "SOLVER.MAX_TIME", "2h30m")
    trainer = Trainer(cfg)
    with pytest.raises(StopRequested, match=r"iteration 2, at SOLVER\.MAX_TIME 2h30m") as stop:
        trainer.train()
    assert stop.value.status == 124 and stop.value.signal is None
    assert (tmp_path / "cut/last_checkpoint").read_text() == "model_0000002.pth"
    # Counted anew, which is enough for the other three iterations.
    rest, resumed = run(cfg, resume=True)
    assert rest == {i: plain_run.losses[i] for i in (3, 4, 5)}
    assert all(torch.equal(value, resumed[key]) for key, value in plain_run.weights.items())


def test_the_command(tmp_path):
    options = ["INPUT.CROP.SIZE", "[64, 64]", "SOLVER.IMS_PER_BATCH", "4"]
    options += ["SOLVER.MAX_ITER", "4000", "SOLVER.MAX_TIME", "0.1s", "OUTPUT_DIR", tmp_path]
    result = topformer("train", *CONFIG, *options)
    assert result.returncode == 124 and "Traceback" not in result.stdout + result.stderr
    stopped = re.search(r"stopped after iteration (\d+), at SOLVER\.MAX_TIME 0\.1s", result.stdout)
    assert (tmp_path / "last_checkpoint").read_text() == f"model_{int(stopped[1]):07d}.pth"
    assert "--resume goes on from there" in result.stdout
