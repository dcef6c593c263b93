"""SOLVER.EMA_DECAY: the average is what it says, is evaluated and saved, and resumes exactly."""

import copy

import pytest
import torch

from tests.engine.test_resume import Record, options, run
from topformer_d2.checkpoint import read_weights
from topformer_d2.engine import Trainer
from topformer_d2.engine.ema import AverageWeights
from topformer_d2.errors import InputError


class KeepWeights(Record):
    """Keeps the trained weights of each iteration."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def after_step(self):
        model = self.trainer.checkpointer.model
        self.weights.append({k: v.clone() for k, v in model.state_dict().items()})


def test_weights_and_statistics_are_averaged(tiny_config):
    cfg = tiny_config(
        *("SOLVER.EMA_DECAY", "0.2", "SOLVER.MAX_ITER", "4", "SOLVER.WARMUP_ITERS", "0"),
        *("DATASETS.TEST", "()"),
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    expected = copy.deepcopy(trainer.model.state_dict())
    keep = KeepWeights()
    trainer.register_hooks([keep])
    trainer.train()
    for decay, trained in zip((1 / 10, 2 / 11, 0.2, 0.2), keep.weights, strict=True):
        for key, value in trained.items():
            expected[key] = (
                decay * expected[key] + (1 - decay) * value if value.is_floating_point() else value
            )
    saved = read_weights(f"{cfg.OUTPUT_DIR}/model_final.pth")
    assert saved.keys() == expected.keys()
    for key, value in saved.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)
    # Not the trained ones, neither weights nor statistics.
    for key in ("backbone.pyramid.stem.weight", "backbone.pyramid.stem.norm.running_var"):
        assert (saved[key] - keep.weights[-1][key]).abs().max() > 1e-4
    assert saved["backbone.pyramid.stem.norm.num_batches_tracked"] == 4


def test_training_itself_is_not_changed(tiny_config, plain_run, tmp_path):
    averaged = run(tiny_config(*options(tmp_path, "5", "ema"), "SOLVER.EMA_DECAY", "0.9"))
    assert plain_run.losses == averaged[0]
    assert all(torch.equal(value, averaged[1][key]) for key, value in plain_run.weights.items())
    checkpoint = torch.load(plain_run.folder / "model_final.pth", weights_only=True)
    assert "AverageWeights" not in checkpoint["trainer"]["hooks"]


@pytest.mark.parametrize(
    "kind", ["segmentation", pytest.param("detection", marks=pytest.mark.slow)]
)
def test_resuming_is_exact(tiny_config, tiny_detector, tmp_path, kind):
    def config(name):
        opts = [*options(tmp_path, "5", name), "SOLVER.EMA_DECAY", "0.9"]
        return tiny_detector(*opts) if kind == "detection" else tiny_config(*opts)

    whole, weights = run(config("whole"))
    first, _ = run(config("cut"), stop_after=2)
    rest, resumed = run(config("cut"), resume=True)
    assert first | rest == whole
    assert all(torch.equal(value, resumed[key]) for key, value in weights.items())
    a, b = (read_weights(str(tmp_path / name / "model_final.pth")) for name in ("whole", "cut"))
    assert all(torch.equal(value, b[key]) for key, value in a.items())
    assert any(not torch.equal(value, weights[key]) for key, value in a.items())


def test_the_average_is_what_is_evaluated_and_kept_as_the_best(tiny_config, tmp_path, monkeypatch):
    opts = ["SOLVER.EMA_DECAY", "0.5", "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "0"]
    trainer = Trainer(tiny_config(*opts, "TEST.BEST_METRICS", "['sem_seg/mIoU']"))
    test, evaluated = Trainer.test.__func__, []

    def record(cls, cfg, model, evaluators=None):
        evaluated.append({k: v.clone() for k, v in model.state_dict().items()})
        return test(cls, cfg, model, evaluators)

    monkeypatch.setattr(Trainer, "test", classmethod(record))
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert len(evaluated) == 1
    for name in ("final", "best"):
        saved = read_weights(str(tmp_path / f"output/model_{name}.pth"))
        assert all(torch.equal(value, saved[key]) for key, value in evaluated[0].items())
    best = torch.load(tmp_path / "output/model_best.pth", weights_only=True)
    assert best["metrics"] == {"sem_seg/mIoU": trainer._last_eval_results["sem_seg"]["mIoU"]}
    key = "sem_seg_head.classifier.weight"
    assert not torch.equal(evaluated[0][key], trainer.model.state_dict()[key])


def test_an_averaged_run_is_not_resumed_without(tiny_config, tmp_path):
    run(tiny_config(*options(tmp_path, "5", "run"), "SOLVER.EMA_DECAY", "0.9"))
    with pytest.raises(InputError, match=r"was trained with SOLVER\.EMA_DECAY"):
        run(tiny_config(*options(tmp_path, "5", "run")), resume=True)


def test_it_may_start_at_a_resume(tiny_config, tmp_path):
    _, weights = run(tiny_config(*options(tmp_path, "5", "run")), stop_after=4)
    cfg = tiny_config(*options(tmp_path, "5", "run"), "SOLVER.EMA_DECAY", "0.9")
    run(cfg, resume=True)
    saved = read_weights(str(tmp_path / "run/model_final.pth"))
    # At iteration 5 the decay is 6 / 15 of what was there.
    key = "sem_seg_head.classifier.weight"
    state = torch.load(tmp_path / "run/model_final.pth", weights_only=True)["trainer"]
    trained = state["hooks"][AverageWeights.__qualname__]["trained"][key]
    torch.testing.assert_close(saved[key], 0.4 * weights[key] + 0.6 * trained)


def test_a_decay_that_is_none(tiny_config):
    with pytest.raises(InputError, match=r"SOLVER\.EMA_DECAY is 1\.0"):
        Trainer(tiny_config("SOLVER.EMA_DECAY", "1.0"))
