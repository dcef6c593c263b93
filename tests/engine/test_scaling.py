"""SOLVER.REFERENCE_BATCH: rate and iterations of another batch, only when asked."""

import logging

import pytest

from tests.engine.test_resume import run
from topformer_d2 import get_config
from topformer_d2.engine import Trainer, scale_to_batch
from topformer_d2.errors import InputError


def numbers(cfg):
    solver = cfg.SOLVER
    return (
        *(solver.BASE_LR, solver.MAX_ITER, solver.WARMUP_ITERS),
        *(solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD),
    )


def test_a_smaller_batch_alone_changes_nothing(caplog):
    caplog.set_level(logging.INFO)
    cfg = get_config("seg_topformer_b", ["SOLVER.IMS_PER_BATCH", "4"])
    assert scale_to_batch(cfg) is cfg
    assert numbers(cfg) == (1.2e-4, 160_000, 1500, 16_000, 16_000)
    same = get_config("seg_topformer_b", ["SOLVER.REFERENCE_BATCH", "16"])
    assert scale_to_batch(same) is same
    assert not [r for r in caplog.records if "REFERENCE_BATCH" in r.message]


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (4, (pytest.approx(3e-5), 640_000, 6000, 64_000, 64_000)),
        (12, (pytest.approx(9e-5), 213_333, 2000, 21_333, 21_333)),
        (32, (pytest.approx(2.4e-4), 80_000, 750, 8000, 8000)),
    ],
)
def test_scaled(batch, expected):
    opts = ["SOLVER.IMS_PER_BATCH", str(batch), "SOLVER.REFERENCE_BATCH", "16"]
    scaled = scale_to_batch(get_config("seg_topformer_b", opts))
    assert numbers(scaled) == expected
    assert batch == scaled.SOLVER.IMS_PER_BATCH
    assert scale_to_batch(scaled) is scaled  # never twice


def test_steps_are_scaled_and_what_is_off_stays_off(caplog):
    caplog.set_level(logging.INFO)
    opts = ["SOLVER.IMS_PER_BATCH", "8", "SOLVER.REFERENCE_BATCH", "16", "TEST.EVAL_PERIOD", "0"]
    cfg = get_config("det_retinanet_topformer_t", [*opts, "SOLVER.WARMUP_ITERS", "0"])
    scaled = scale_to_batch(cfg)
    assert scaled.SOLVER.STEPS == (120_000, 160_000)
    assert numbers(scaled) == (0.005, 180_000, 0, 20_000, 0)
    assert caplog.messages == [
        "SOLVER.REFERENCE_BATCH is 16 and SOLVER.IMS_PER_BATCH 8: SOLVER.BASE_LR 0.01 -> 0.005, "
        "SOLVER.MAX_ITER 90000 -> 180000, SOLVER.STEPS (60000, 80000) -> (120000, 160000), "
        "SOLVER.CHECKPOINT_PERIOD 10000 -> 20000"
    ]
    caplog.clear()
    # WarmupPolyLR reads no steps.
    poly = scale_to_batch(get_config("seg_topformer_t_camvid", opts[:4]))
    assert poly.SOLVER.STEPS == (30_000,) and "STEPS" not in caplog.text
    assert "SOLVER.MAX_ITER 4000 -> 8000" in caplog.text
    tiny = get_config("seg_topformer_b", ["SOLVER.IMS_PER_BATCH", "64", "SOLVER.MAX_ITER", "10"])
    tiny.SOLVER.REFERENCE_BATCH = 1
    assert scale_to_batch(tiny).SOLVER.MAX_ITER == 1


def test_a_scaled_run_resumes_exactly_and_only_as_it_was(tiny_config, tmp_path):
    def config(name, batch="4", reference="8"):
        return tiny_config(
            *("SOLVER.IMS_PER_BATCH", batch, "SOLVER.REFERENCE_BATCH", reference),
            *("SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1", "DATASETS.TEST", "()"),
            *("OUTPUT_DIR", str(tmp_path / name)),
        )

    whole, _ = run(config("whole"))
    assert list(whole) == [0, 1, 2, 3]  # twice the iterations of half the batch
    first, _ = run(config("cut"), stop_after=1)
    for batch, reference in (("8", "8"), ("4", "0"), ("2", "8")):
        with pytest.raises(InputError, match=r"another SOLVER\.IMS_PER_BATCH or REFERENCE_BATCH"):
            run(config("cut", batch, reference), resume=True)
    rest, _ = run(config("cut"), resume=True)
    assert first | rest == whole


def test_the_rate_is_scaled(tiny_config):
    trainer = Trainer(tiny_config("SOLVER.REFERENCE_BATCH", "16", "SOLVER.WARMUP_ITERS", "0"))
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.003 / 4)
    assert trainer.max_iter == trainer.cfg.SOLVER.MAX_ITER == 2400


def test_by_the_number_of_processes_as_in_detectron2(tiny_config, tmp_path):
    """The recipe is for 8 processes of 4 images, and there is one."""
    opts = ["SOLVER.IMS_PER_BATCH", "32", "SOLVER.REFERENCE_WORLD_SIZE", "8"]
    opts += ["SOLVER.BASE_LR", "0.008", "SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()"]
    cfg = tiny_config(*opts)
    trainer = Trainer(cfg)
    assert (trainer.data_loader.batch_size, trainer.max_iter) == (4, 8)
    assert pytest.approx(0.001) == trainer.cfg.SOLVER.BASE_LR
    with pytest.raises(InputError, match=r"ACCUMULATION_STEPS is 8.*IMS_PER_BATCH 4 "):
        Trainer(tiny_config(*opts, "SOLVER.ACCUMULATION_STEPS", "8"))
    run(cfg, stop_after=1)
    with pytest.raises(InputError, match=r"REFERENCE_WORLD_SIZE, number of processes"):
        run(tiny_config(*opts, "SOLVER.REFERENCE_WORLD_SIZE", "1"), resume=True)


def test_a_negative_batch():
    with pytest.raises(InputError, match=r"SOLVER\.REFERENCE_BATCH is -1"):
        scale_to_batch(get_config("seg_topformer_t", ["SOLVER.REFERENCE_BATCH", "-1"]))
