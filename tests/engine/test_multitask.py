"""The joint model trained: mixed data, exact resume, both evaluators, the best checkpoint."""

import math

import pytest
import torch
from detectron2.utils.events import get_event_storage

from tests.engine.test_resume import run
from topformer_d2 import get_config
from topformer_d2.data import check_config
from topformer_d2.engine import Trainer, setup_run
from topformer_d2.errors import InputError

MIXED = ("synthetic_sem_seg_train", "synthetic_boxes_train", "synthetic_multitask_train")


@pytest.fixture
def tiny_joint(tmp_path):
    """get_config's arguments for a joint run of seconds on images of 64x80."""

    def make(*opts):
        return get_config(
            "multitask_lite_topformer_t_synthetic",
            [
                *("INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64"),
                *("INPUT.MAX_SIZE_TEST", "80", "SOLVER.IMS_PER_BATCH", "4"),
                *("SOLVER.WARMUP_ITERS", "2", "DATALOADER.NUM_WORKERS", "0"),
                *("MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "run")),
                *opts,
            ],
        )

    return make


@pytest.mark.parametrize("uncertainty", [pytest.param("False", marks=pytest.mark.slow), "True"])
def test_a_mixed_run_resumes_exactly(tiny_joint, tmp_path, uncertainty):
    opts = [
        *("DATASETS.TRAIN", repr(MIXED), "DATASETS.TRAIN_WEIGHTS", "[1.0, 1.0, 2.0]"),
        *("MODEL.MULTITASK.UNCERTAINTY_WEIGHTING", uncertainty, "SOLVER.MAX_ITER", "5"),
        *("MODEL.TOPFORMER.DROP_PATH_RATE", "0.3", "INPUT.COLOR_AUG_SSD", "True"),
        *("DATASETS.TEST", "()", "OUTPUT_DIR"),
    ]
    whole, weights = run(tiny_joint(*opts, str(tmp_path / "whole")))
    cut = tiny_joint(*opts, str(tmp_path / "cut"))
    first, _ = run(cut, stop_after=1)
    rest, resumed = run(cut, resume=True)
    assert list(first) == [0, 1] and first | rest == whole
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)
    if uncertainty == "True":
        assert weights["loss_weighting.log_variance"].abs().min() > 0


def test_uncertainties_are_not_decayed(tiny_joint):
    cfg = tiny_joint("MODEL.MULTITASK.UNCERTAINTY_WEIGHTING", "True")
    trainer = Trainer(cfg)
    parameter = trainer.model.loss_weighting.log_variance
    decays = [
        group["weight_decay"]
        for group in trainer.optimizer.param_groups
        if any(p is parameter for p in group["params"])
    ]
    assert decays == [0.0]


def script_results(monkeypatch, found):
    """Make evaluation give {iteration: (mIoU, AP)}, having checked that it gives both."""
    test = Trainer.test.__func__

    def scripted(cls, cfg, model, evaluators=None):
        results = test(cls, cfg, model, evaluators)
        assert {"mIoU", "IoU-disc"} <= results["sem_seg"].keys()
        assert {"AP", "AP-disc"} <= results["bbox"].keys()
        miou, ap = found[get_event_storage().iter]
        return {"sem_seg": {"mIoU": miou}, "bbox": {"AP": ap}}

    monkeypatch.setattr(Trainer, "test", classmethod(scripted))


def kept(folder):
    return torch.load(folder / "model_best.pth", weights_only=True)


def test_one_run_evaluates_both_and_keeps_the_best(tiny_joint, tmp_path, monkeypatch):
    """The best is that of the mean, not the last, and a resumed run knows it."""
    found = {1: (40.0, 30.0), 3: (41.0, 35.0), 5: (math.nan, 90.0), 7: (60.0, 10.0)}
    script_results(monkeypatch, found)
    folder = tmp_path / "run"
    cfg = tiny_joint(
        *("SOLVER.MAX_ITER", "7", "TEST.EVAL_PERIOD", "2", "SOLVER.CHECKPOINT_PERIOD", "4")
    )
    setup_run(cfg)
    Trainer(cfg).train()
    best = kept(folder)
    assert (best["iteration"], best["mean"]) == (3, 38.0)
    assert best["metrics"] == {"sem_seg/mIoU": 41.0, "bbox/AP": 35.0}
    then = torch.load(folder / "model_0000003.pth", weights_only=True)["model"]
    assert all(torch.equal(best["model"][key], then[key]) for key in then)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    for ap, mean in ((35.0, 38.0), (37.0, 39.0)):  # a lower mean of 36 does not replace it
        (folder / "last_checkpoint").write_text("model_0000003.pth")
        found[5] = found[7] = (37.0, ap) if mean == 38 else (41.0, ap)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.train()
        assert kept(folder)["mean"] == mean
    cfg.SOLVER.MAX_ITER = 3
    fresh = Trainer(cfg)  # which is not resumed, so the old file does not count
    found.update(dict.fromkeys(found, (10.0, 20.0)))
    fresh.train()
    assert (kept(folder)["iteration"], kept(folder)["mean"]) == (1, 15.0)


def test_of_several_test_datasets_the_mean_counts(tiny_joint, tmp_path):
    names = ("synthetic_sem_seg_val", "synthetic_boxes_val", "synthetic_multitask_val")
    cfg = tiny_joint("SOLVER.MAX_ITER", "1", "DATASETS.TEST", repr(names))
    setup_run(cfg)
    trainer = Trainer(cfg)
    trainer.train()
    best = kept(tmp_path / "run")["metrics"]
    found = trainer._last_eval_results
    assert best["sem_seg/mIoU"] == pytest.approx(
        (found[names[0]]["sem_seg"]["mIoU"] + found[names[2]]["sem_seg"]["mIoU"]) / 2
    )
    assert best["bbox/AP"] == pytest.approx(found[names[1]]["bbox"]["AP"])  # the same boxes twice


def test_a_metric_that_is_not_a_number_is_named(tiny_joint, tmp_path, caplog):
    cfg = tiny_joint("SOLVER.MAX_ITER", "1", "TEST.BEST_METRICS", "['sem_seg/mIoU', 'bbox/APl']")
    setup_run(cfg)
    Trainer(cfg).train()  # the images are too small for large objects
    assert "no mean of TEST.BEST_METRICS" in caplog.text and "'bbox/APl': nan" in caplog.text
    assert not (tmp_path / "run/model_best.pth").exists()


@pytest.mark.parametrize(
    ("metric", "test", "message"),
    [
        ("segm/AP", "synthetic_multitask_val", r"names 'segm/AP'.*\['bbox', 'sem_seg'\] alone"),
        ("bbox/AP", "synthetic_sem_seg_val", r"names 'bbox/AP'.*such as sem_seg/mIoU"),
        ("mIoU", "synthetic_multitask_val", r"names 'mIoU'"),
    ],
)
def test_metrics_of_no_test_dataset_are_named_at_once(tiny_joint, metric, test, message):
    opts = ["TEST.BEST_METRICS", repr([metric]), "DATASETS.TEST", repr((test,))]
    with pytest.raises(InputError, match=message):
        check_config(tiny_joint(*opts), train=True)
