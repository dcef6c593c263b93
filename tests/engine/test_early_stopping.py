"""TEST.PATIENCE: training ends where evaluations do not get better, also over a resume."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from tests.engine.test_resume import options, run
from topformer_d2 import get_config
from topformer_d2.engine import Trainer, early_stopping, setup_run
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


# In one process, as they share a run.
pytestmark = pytest.mark.xdist_group("early_stopping")


@pytest.fixture(autouse=True, scope="module")
def scored():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.engine.test_resume.Trainer", Scored)
        yield


def config(folder, *further):
    small = ["INPUT.CROP.SIZE", "[64, 64]", "SOLVER.IMS_PER_BATCH", "4", "MODEL.DEVICE", "cpu"]
    small += ["DATALOADER.NUM_WORKERS", "0", *options(folder.parent, "5", folder.name), *PATIENT]
    small += ["DATASETS.TEST", "('synthetic_sem_seg_val',)"]
    return get_config("seg_topformer_t_synthetic", [*small, *further])


def iteration_in(path):
    return torch.load(path, weights_only=True)["iteration"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run: its folder, losses and weights, evaluations and warnings."""
    folder, lines = tmp_path_factory.mktemp("early") / "whole", []
    Scored.evaluated = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(early_stopping.logger, "warning", lambda text, *a: lines.append(text % a))
        losses, weights = run(config(folder))
    return SimpleNamespace(
        folder=folder, losses=losses, weights=weights, evaluated=Scored.evaluated, lines=lines
    )


def test_the_run_ends_as_after_its_last_iteration(whole):
    folder = whole.folder
    assert list(whole.losses) == whole.evaluated == [0, 1, 2, 3, 4]
    assert iteration_in(folder / "model_final.pth") == 4
    assert iteration_in(folder / "model_best.pth") == 1
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    (line,) = whole.lines
    assert "after iteration 4 of 6" in line and "iteration 1, whose" in line
    assert str(folder / "model_best.pth") in line
    assert '"iteration": 4' in (folder / "metrics.json").read_text()


@pytest.mark.slow
def test_expected_results_are_looked_at(tmp_path, caplog):
    Scored.evaluated = []
    expected = ["TEST.EXPECTED_RESULTS", "[['sem_seg', 'mIoU', 50.0, 1.0]]"]
    with pytest.raises(SystemExit):
        run(config(tmp_path / "run", *expected, "TEST.PATIENCE", "1"))
    assert "Result verification failed" in caplog.text


@pytest.mark.parametrize(
    "checkpoint",
    [*(pytest.param(number, marks=pytest.mark.slow) for number in (0, 1, 3)), 4],
)
def test_it_ends_at_the_same_iteration_after_a_resume(tmp_path, whole, checkpoint):
    """After a kill: 0 is before the best one, 4 has been saved and model_final.pth has not."""
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(whole.folder / f"model_{checkpoint:07d}.pth", cut)
    shutil.copy(whole.folder / "model_best.pth", cut)
    (cut / "last_checkpoint").write_text(f"model_{checkpoint:07d}.pth")
    losses, weights = run(config(cut), resume=True)
    assert losses == {i: whole.losses[i] for i in range(checkpoint + 1, 5)}
    assert iteration_in(cut / "model_final.pth") == 4 and iteration_in(cut / "model_best.pth") == 1
    assert all(torch.equal(value, weights[key]) for key, value in whole.weights.items())


@pytest.mark.slow
def test_a_signal_in_between_changes_nothing(tmp_path, whole):
    first, _ = run(config(tmp_path / "cut"), stop_after=2)
    rest, _ = run(config(tmp_path / "cut"), resume=True)
    assert first | rest == whole.losses and list(rest) == [3, 4]


@pytest.mark.slow
def test_an_ended_run_goes_on_with_more_patience(tmp_path, whole, caplog):
    again = tmp_path / "again"
    shutil.copytree(whole.folder, again)
    assert run(config(again), resume=True)[0] == {}
    assert "Training ends early, after iteration 4 of 6" in caplog.text
    assert list(run(config(again, "TEST.PATIENCE", "4"), resume=True)[0]) == [5]
    assert iteration_in(again / "model_best.pth") == 5


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["TEST.BEST_METRICS", "[]"], r"TEST\.BEST_METRICS"),
        (["TEST.EVAL_PERIOD", "0"], r"TEST\.EVAL_PERIOD above 0"),
        (["TEST.PATIENCE", "-1"], r"TEST\.PATIENCE is -1"),
    ],
)
def test_what_it_needs(tmp_path, opts, named):
    with pytest.raises(InputError, match=named):
        config(tmp_path / "run", *opts)


def train_in_process(cfg, path):
    setup_run(cfg)
    Scored.evaluated = []
    trainer = Scored(cfg)
    trainer.train()
    if comm.is_main_process():
        torch.save(trainer.iter, path)


@pytest.mark.slow
def test_several_processes_end_together(tmp_path):
    cfg = config(tmp_path / "run")
    launch(train_in_process, 2, device="cpu", args=(cfg, str(tmp_path / "done")))
    assert torch.load(tmp_path / "done") == 5
    assert iteration_in(tmp_path / "run/model_final.pth") == 4
