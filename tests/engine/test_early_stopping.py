"""TEST.PATIENCE: training ends where evaluations do not get better, also over a resume."""

import shutil

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from tests.engine.test_resume import options, run
from topformer_d2.engine import Trainer, setup_run
from topformer_d2.engine.launch import launch
from topformer_d2.errors import InputError

# mIoU after each iteration: the best is that of iteration 1, and so the third one after it is 4.
SCORES = (10.0, 20.0, 15.0, 20.0, 18.0, 30.0, 30.0)
EVERY = ["SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "1"]
PATIENT = [*EVERY, "TEST.BEST_METRICS", "['sem_seg/mIoU']", "TEST.PATIENCE", "3"]


class Scored(Trainer):
    """Its evaluations are SCORES."""

    evaluated = None

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        storage = get_event_storage()
        losses = storage.latest()
        # Where nothing was trained, it is the evaluation after the training.
        iteration = losses["total_loss"][1] if "total_loss" in losses else storage.iter - 1
        cls.evaluated.append(iteration)
        return {"sem_seg": {"mIoU": SCORES[iteration]}}


@pytest.fixture(autouse=True)
def scored(monkeypatch):
    Scored.evaluated = []
    monkeypatch.setattr("tests.engine.test_resume.Trainer", Scored)


def config(tiny_config, tmp_path, name, *further):
    return tiny_config(
        *(*options(tmp_path, "5", name), *PATIENT, "DATASETS.TEST", "('synthetic_sem_seg_val',)"),
        *further,
    )


def iteration_in(path):
    return torch.load(path, weights_only=True)["iteration"]


@pytest.fixture
def whole(tiny_config, tmp_path):
    """An undisturbed run: its losses and weights."""
    return run(config(tiny_config, tmp_path, "whole"))


def test_the_run_ends_as_after_its_last_iteration(whole, tmp_path, caplog):
    folder = tmp_path / "whole"
    assert list(whole[0]) == Scored.evaluated == [0, 1, 2, 3, 4]
    assert iteration_in(folder / "model_final.pth") == 4
    assert iteration_in(folder / "model_best.pth") == 1
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    text = "\n".join(record.getMessage() for record in caplog.get_records("setup"))
    assert "after iteration 4 of 6" in text and "iteration 1, whose" in text
    assert str(folder / "model_best.pth") in text
    assert '"iteration": 4' in (folder / "metrics.json").read_text()


def test_the_last_evaluation_and_expected_results_come_as_well(tiny_config, tmp_path, caplog):
    expected = ["TEST.EXPECTED_RESULTS", "[['sem_seg', 'mIoU', 50.0, 1.0]]"]
    with pytest.raises(SystemExit):
        run(config(tiny_config, tmp_path, "run", *expected))
    assert "Result verification failed" in caplog.text


@pytest.mark.parametrize(
    "checkpoint",
    [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow), 4],
)
def test_it_ends_at_the_same_iteration_after_a_resume(tiny_config, tmp_path, whole, checkpoint):
    """After a kill: 0 is before the best one, 4 has been saved and model_final.pth has not."""
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(tmp_path / "whole" / f"model_{checkpoint:07d}.pth", cut)
    shutil.copy(tmp_path / "whole/model_best.pth", cut)
    (cut / "last_checkpoint").write_text(f"model_{checkpoint:07d}.pth")
    losses, weights = run(config(tiny_config, tmp_path, "cut"), resume=True)
    assert losses == {i: whole[0][i] for i in range(checkpoint + 1, 5)}
    assert iteration_in(cut / "model_final.pth") == 4 and iteration_in(cut / "model_best.pth") == 1
    assert all(torch.equal(value, weights[key]) for key, value in whole[1].items())


@pytest.mark.slow
def test_a_signal_in_between_changes_nothing(tiny_config, tmp_path, whole):
    first, _ = run(config(tiny_config, tmp_path, "cut"), stop_after=2)
    rest, _ = run(config(tiny_config, tmp_path, "cut"), resume=True)
    assert first | rest == whole[0] and list(rest) == [3, 4]


def test_an_ended_run_goes_on_with_more_patience(tiny_config, tmp_path, whole, caplog):
    caplog.clear()
    assert run(config(tiny_config, tmp_path, "whole"), resume=True)[0] == {}
    assert "Training ends early, after iteration 4 of 6" in caplog.text
    more = config(tiny_config, tmp_path, "whole", "TEST.PATIENCE", "4")
    assert list(run(more, resume=True)[0]) == [5]
    assert iteration_in(tmp_path / "whole/model_best.pth") == 5


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["TEST.BEST_METRICS", "[]"], r"TEST\.BEST_METRICS"),
        (["TEST.EVAL_PERIOD", "0"], r"TEST\.EVAL_PERIOD above 0"),
        (["TEST.PATIENCE", "-1"], r"TEST\.PATIENCE is -1"),
    ],
)
def test_what_it_needs(tiny_config, tmp_path, opts, named):
    with pytest.raises(InputError, match=named):
        config(tiny_config, tmp_path, "run", *opts)


def train_in_process(cfg, path):
    setup_run(cfg)
    Scored.evaluated = []
    trainer = Scored(cfg)
    trainer.train()
    if comm.is_main_process():
        torch.save(trainer.iter, path)


@pytest.mark.slow
def test_several_processes_end_together(tiny_config, tmp_path):
    cfg = config(tiny_config, tmp_path, "run")
    launch(train_in_process, 2, device="cpu", args=(cfg, str(tmp_path / "done")))
    assert torch.load(tmp_path / "done") == 5
    assert iteration_in(tmp_path / "run/model_final.pth") == 4
