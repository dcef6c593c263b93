"""Detectors trained, evaluated and used through the command, as a user does."""

import json
import re

import cv2
import pytest

from tests.helpers import SMALL_DETECTOR, start_topformer, topformer


@pytest.mark.parametrize("kind", [pytest.param("", marks=pytest.mark.slow), "lite_"])
def test_train_evaluate_resume_and_draw(tmp_path, kind):
    config = ["--config-file", f"configs/det_retinanet_{kind}topformer_t.yaml"]
    opts = [*SMALL_DETECTOR, "SOLVER.MAX_ITER", "20", "SEED", "0"]
    opts += ["DATALOADER.NUM_WORKERS", "1", "OUTPUT_DIR", str(tmp_path)]
    trained = topformer("train", *config, *opts)
    assert trained.returncode == 0, trained.stderr[-2000:]
    text = trained.stdout + trained.stderr
    assert re.search(r"iter: 19 .*total_loss: [\d.]+ .*loss_cls: .*loss_box_reg: ", text)
    result = "inference/synthetic_boxes_val/bbox_evaluation.json"
    first = json.loads((tmp_path / result).read_text())["metrics"]
    assert {"AP", "AP50", "AP-disc", "AP-ring"} <= first.keys()
    weights = str(tmp_path / "model_final.pth")
    opts[-1] = str(tmp_path / "again")
    evaluated = topformer("train", *config, "--eval-only", *opts, "MODEL.WEIGHTS", weights)
    assert evaluated.returncode == 0, evaluated.stderr[-2000:]
    assert json.loads((tmp_path / "again" / result).read_text())["metrics"] == first
    sheet = topformer(
        *("data", "view", "--config-file", tmp_path / "config.yaml", "--weights", weights),
        *("--output", tmp_path / "sheet.png", "--num-images", "2", "--min-score", "0.01"),
    )
    assert sheet.returncode == 0, sheet.stderr
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (
        24 + 2 * 256 + 2 * 6,
        3 * 320 + 4 * 6,
        3,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["det_retinanet_topformer_t"], "dataset 'coco_2017_train' is not here"),
        (
            ["det_retinanet_lite_topformer_t_bccd"],
            "data prepare voc_detection --source BCCD",
        ),
    ],
    ids=["COCO", "BCCD"],
)
def test_missing_datasets(tmp_path, arguments, message):
    config = f"configs/{arguments[0]}.yaml"
    result = topformer("train", "--config-file", config, "OUTPUT_DIR", tmp_path)
    assert result.returncode == 1 and message in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_detector_learns_four_images_by_heart(tmp_path):
    """Training, decoding and evaluation fit each other: AP50 on the training images passes 0.9."""
    from topformer_d2.data.synthetic import write_synthetic

    write_synthetic(str(tmp_path), num_train=4, num_val=1, size=(128, 160))
    result = start_topformer(
        *("train", "--config-file", "configs/det_retinanet_lite_topformer_t.yaml"),
        *("DATASETS.TRAIN", "('synthetic_boxes_train',)"),
        *("DATASETS.TEST", "('synthetic_boxes_train',)", "MODEL.RETINANET.NUM_CLASSES", "5"),
        *("INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MAX_SIZE_TRAIN", "160"),
        *("INPUT.MIN_SIZE_TEST", "128", "INPUT.MAX_SIZE_TEST", "160", "INPUT.CROP.ENABLED"),
        *("False", "INPUT.SCALE_RANGE", "[1.0, 1.0]", "INPUT.COLOR_AUG_SSD", "False"),
        *("MODEL.TOPFORMER.DROP_PATH_RATE", "0.0", "SOLVER.IMS_PER_BATCH", "4"),
        *("SOLVER.MAX_ITER", "300", "SOLVER.WARMUP_ITERS", "20", "SOLVER.BASE_LR", "0.003"),
        *("TEST.EVAL_PERIOD", "0", "SEED", "0", "OUTPUT_DIR", tmp_path / "out"),
        DETECTRON2_DATASETS=str(tmp_path),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    losses = [m["total_loss"] for m in metrics if "total_loss" in m]
    assert losses[-1] < 0.2 * losses[0]
    assert metrics[-1]["bbox/AP50"] > 90
