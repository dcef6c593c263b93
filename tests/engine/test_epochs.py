"""SOLVER.EPOCHS: MAX_ITER, the warm-up and the steps follow from the number of images."""

import logging

import pytest
import torch

from tests.engine.test_resume import options, run
from topformer_d2.config import load_config
from topformer_d2.data import loader
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError


def epochs(tmp_path, name, number):
    """`options` without its MAX_ITER; the synthetic dataset has 12 training images."""
    return [*options(tmp_path, "5", name)[2:], "SOLVER.EPOCHS", str(number)]


@pytest.mark.parametrize(
    ("number", "batch", "expected", "steps"),
    [(3, 4, 9, (4, 8)), (2, 5, 5, (2, 4)), (1, 16, 1, ()), (100, 4, 300, (150, 270))],
)
def test_iterations_follow(tiny_config, tmp_path, caplog, number, batch, expected, steps):
    caplog.set_level(logging.INFO, "topformer_d2")
    cfg = tiny_config(
        *(*epochs(tmp_path, "run", number), "SOLVER.IMS_PER_BATCH", str(batch)),
        *("SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "(300, 540)"),
    )
    trainer = Trainer(cfg)
    solver = trainer.cfg.SOLVER
    assert trainer.max_iter == solver.MAX_ITER == expected
    # Of the 600 of the config, in which they are 50, 300 and 540.
    assert round(50 * expected / 600) == solver.WARMUP_ITERS
    assert steps == solver.STEPS
    assert f"of 12 training images in batches of {batch}: SOLVER.MAX_ITER 600 -> {expected}" in (
        caplog.text
    )


def test_the_dataset_is_read_once(tiny_config, tmp_path, monkeypatch):
    read, calls = loader.load_records, []
    monkeypatch.setattr(loader, "load_records", lambda name: calls.append(name) or read(name))
    Trainer(tiny_config(*epochs(tmp_path, "run", 1)))
    assert len(calls) == 1


def test_it_is_the_training_of_as_many_iterations(tiny_config, tmp_path):
    plain = tiny_config(*options(tmp_path, "5", "plain"), "SOLVER.WARMUP_ITERS", "2")
    # 200 of 600 are as 2 of 6.
    other = tiny_config(*epochs(tmp_path, "epochs", 2), "SOLVER.WARMUP_ITERS", "200")
    expected, weights = run(plain)
    losses, same = run(other)
    assert losses == expected
    assert all(torch.equal(value, same[key]) for key, value in weights.items())


@pytest.mark.slow
def test_resuming_is_exact(tiny_config, tmp_path):
    whole, weights = run(tiny_config(*epochs(tmp_path, "whole", 2)))
    first, _ = run(tiny_config(*epochs(tmp_path, "cut", 2)), stop_after=2)
    rest, resumed = run(tiny_config(*epochs(tmp_path, "cut", 2)), resume=True)
    assert len(whole) == 6 and first | rest == whole
    assert all(torch.equal(value, resumed[key]) for key, value in weights.items())


def test_what_a_file_or_command_names_last_counts(tmp_path):
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    base.write_text("SOLVER: {EPOCHS: 5, MAX_ITER: 100}\n")
    child.write_text("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 20}\n")
    found = [load_config(base), load_config(child), load_config(base, ["SOLVER.MAX_ITER", "7"])]
    assert [(cfg.SOLVER.EPOCHS, cfg.SOLVER.MAX_ITER) for cfg in found] == [
        (5, 100),
        (0, 20),
        (0, 7),
    ]


def test_both_in_one_command():
    with pytest.raises(InputError, match=r"SOLVER\.EPOCHS is 3.*SOLVER\.MAX_ITER.*one of the two"):
        load_config("", ["SOLVER.MAX_ITER", "7", "SOLVER.EPOCHS", "3"])


def test_a_loader_that_does_not_tell_its_images(tiny_config, tmp_path):
    class Other(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return iter([])

    with pytest.raises(InputError, match=r"SOLVER\.EPOCHS is 1, but"):
        Other(tiny_config(*epochs(tmp_path, "run", 1)))


def test_a_resumed_run_keeps_its_batch(tiny_config, tmp_path):
    """Else half of the epochs would be all iterations of the larger batch."""
    trainer = Trainer(tiny_config(*epochs(tmp_path, "run", 4)))
    state = trainer.state_dict()
    batch = ("SOLVER.IMS_PER_BATCH", "8")
    with pytest.raises(InputError, match=r"run was trained with SOLVER\.IMS_PER_BATCH 4,.*EPOCHS"):
        Trainer(tiny_config(*epochs(tmp_path, "run", 4), *batch)).load_state_dict(state)
    longer = Trainer(tiny_config(*epochs(tmp_path, "run", 8)))
    longer.load_state_dict(state)
    assert (trainer.max_iter, longer.max_iter) == (12, 24)
    fixed = Trainer(tiny_config(*options(tmp_path, "5", "run"), *batch))
    fixed.load_state_dict(state)
    assert fixed.max_iter == 6
