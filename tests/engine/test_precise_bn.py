"""TEST.PRECISE_BN: true statistics of the evaluated weights, and exact resume."""

import itertools

import pytest
import torch

from tests.engine.test_resume import options, run
from topformer_d2 import get_config
from topformer_d2.checkpoint import read_weights
from topformer_d2.data import build_train_loader
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError

ON = ["TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "3"]


@pytest.mark.parametrize("decay", ["0.0", "0.5"])
def test_statistics_are_those_of_the_saved_weights_on_the_first_batches(tiny_config, decay):
    cfg = tiny_config(
        *(*ON, "SOLVER.MAX_ITER", "4", "SOLVER.WARMUP_ITERS", "0", "DATASETS.TEST", "()"),
        *("SEED", "3", "SOLVER.EMA_DECAY", decay),
    )
    run(cfg)
    saved = read_weights(f"{cfg.OUTPUT_DIR}/model_final.pth")
    model = Trainer.build_model(cfg).train()
    model.load_state_dict(saved)
    seen = []
    norm = model.backbone.pyramid.stem.norm
    norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        for batch in itertools.islice(build_train_loader(cfg), 3):
            model(batch)
    seen = torch.cat(seen).transpose(0, 1).flatten(1)
    key = "backbone.pyramid.stem.norm.running_"
    torch.testing.assert_close(saved[f"{key}mean"], seen.mean(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(saved[f"{key}var"], seen.var(1, correction=0), rtol=1e-3, atol=1e-4)


def test_training_is_not_changed(tiny_config, plain_run, tmp_path):
    opts = [*options(tmp_path, "5", "precise"), *ON, "TEST.EVAL_PERIOD", "2"]
    precise, changed = run(tiny_config(*opts))
    assert plain_run.losses == precise
    for key, value in plain_run.weights.items():
        is_statistic = key.rpartition(".")[2] in (
            *("running_mean", "running_var", "num_batches_tracked"),
        )
        assert torch.equal(value, changed[key]) != is_statistic, key


@pytest.mark.parametrize("seed", ["5", pytest.param("-1", marks=pytest.mark.slow)])
def test_resuming_is_exact(tiny_config, tmp_path, seed):
    def config(name):
        opts = [*options(tmp_path, seed, name), *ON, "TEST.EVAL_PERIOD", "2"]
        return tiny_config(*opts)

    whole, weights = run(config("whole"))
    (tmp_path / "cut").mkdir()
    state = torch.load(tmp_path / "whole/model_0000002.pth", weights_only=True)
    torch.save(state, tmp_path / "cut/model_0000002.pth")
    (tmp_path / "cut/last_checkpoint").write_text("model_0000002.pth")
    rest, resumed = run(config("cut"), resume=True)
    assert rest == {i: whole[i] for i in (3, 4, 5)}
    assert all(torch.equal(value, resumed[key]) for key, value in weights.items())


def test_a_detector_s_training_is_not_changed(tiny_detector, tmp_path):
    """Nor is its running mean of foreground anchors, by which it divides its losses."""
    opts = ["SOLVER.MAX_ITER", "4", "DATASETS.TEST", "()", "OUTPUT_DIR"]
    plain, _ = run(tiny_detector(*opts, str(tmp_path / "plain")))
    precise, weights = run(
        tiny_detector(*opts, str(tmp_path / "precise"), *ON, "TEST.EVAL_PERIOD", "1")
    )
    assert len(plain) == 4 and plain == precise
    assert all(value.isfinite().all() for value in weights.values())


def test_a_joint_model_s_training_is_not_changed(tmp_path):
    def config(name, *opts):
        small = ["SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()", "MODEL.DEVICE", "cpu", "SEED", "0"]
        small += ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", *opts]
        return get_config(
            "multitask_lite_topformer_t_synthetic", [*small, "OUTPUT_DIR", str(tmp_path / name)]
        )

    plain, _ = run(config("plain"))
    precise, _ = run(config("precise", *ON, "TEST.EVAL_PERIOD", "1"))
    assert len(plain) == 3 and plain == precise


def test_no_batches(tiny_config):
    with pytest.raises(InputError, match=r"PRECISE_BN\.NUM_ITER is 0"):
        Trainer(tiny_config(*ON[:3], "0"))


def test_frozen_norms(tiny_config):
    with pytest.raises(InputError, match=r"PRECISE_BN\.ENABLED is True.*no BatchNorm"):
        Trainer(
            tiny_config(
                *(*ON, "MODEL.TOPFORMER.NORM", "FrozenBN", "MODEL.SEM_SEG_HEAD.NORM", "FrozenBN")
            )
        )
