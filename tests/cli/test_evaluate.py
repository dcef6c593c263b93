"""`topformer eval`, and predictions drawn by `topformer data view`."""

import re

import cv2
import pytest

from tests.helpers import save_untrained, topformer
from topformer_d2 import get_config
from topformer_d2.cli import evaluate
from topformer_d2.evaluation.predictions import evaluate_tasks
from topformer_d2.inference import Predictor

CONFIG = ["--config-file", "configs/seg_topformer_t_synthetic.yaml"]
DATASET = "synthetic_sem_seg_val"
SMALL = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of an untrained segmenter."""
    cfg = get_config("seg_topformer_t_synthetic", SMALL)
    return save_untrained(cfg, tmp_path_factory.mktemp("weights") / "model.pth")


def test_a_checkpoint_is_evaluated_as_by_eval_only(weights, tmp_path):
    name = f"inference/{DATASET}/sem_seg_evaluation.json"
    opts = [*SMALL, "OUTPUT_DIR", tmp_path / "eval"]
    result = topformer("eval", *CONFIG, "--weights", weights, *opts)
    assert result.returncode == 0 and "mIoU" in result.stdout, result.stderr
    opts[-1] = tmp_path / "train"
    result = topformer("train", *CONFIG, "--eval-only", *opts, "MODEL.WEIGHTS", weights)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "eval" / name).read_text() == (tmp_path / "train" / name).read_text()


def test_the_figures_of_both_tasks_have_their_names(monkeypatch):
    found = {"sem_seg": {"mIoU": 50.0}, "bbox": {"AP": 25.125}}
    monkeypatch.setattr(evaluate, "Predictor", lambda path: path)
    monkeypatch.setattr(evaluate, "evaluate_tasks", lambda predictor, name: found)
    result = topformer("eval", "--model", "joint.onnx", "--dataset", "both")
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows == [["sem_seg/mIoU", "50.00"], ["bbox/AP", "25.12"]]


def test_an_exported_file_is_evaluated_and_drawn(weights, tmp_path):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    from topformer_d2.export import export_model

    model = str(tmp_path / "m.onnx")
    export_model(get_config("seg_topformer_t_synthetic", SMALL), weights, model)
    result = topformer("eval", "--model", model, "--dataset", DATASET)
    assert result.returncode == 0, result.stderr
    found = re.search(r"^mIoU +([\d.]+)$", result.stdout, re.M)[1]
    assert float(found) == round(evaluate_tasks(Predictor(model), DATASET)["sem_seg"]["mIoU"], 2)
    by_config = topformer("eval", "--model", model, *CONFIG)
    assert by_config.stdout == result.stdout
    sheet = tmp_path / "sheet.png"
    result = topformer("data", "view", "--model", model, "--dataset", DATASET, "--output", sheet)
    assert result.returncode == 0, result.stderr
    assert cv2.imread(str(sheet)).shape[1] > 3 * 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval"], "--config-file, or --model"),
        (["eval", "--model", "m.onnx"], "name a --dataset, or a --config-file"),
        (["eval", "--model", "m.onnx", "--weights", "w.pth"], "leave those out"),
        (["eval", *CONFIG, "--dataset", "x"], "--dataset goes with --model"),
        (["eval", *CONFIG], "there are no weights to evaluate"),
        (["data", "view", "--model", "m.onnx", "--output", "a.png"], "name one"),
        (
            ["data", "view", *CONFIG, "--weights", "w", "--augmented", "--output", "a.png"],
            "--augmented does not go with predictions",
        ),
    ],
)
def test_what_does_not_go_together(tmp_path, words, message):
    opts = ["OUTPUT_DIR", tmp_path] if words[:2] == ["eval", "--config-file"] else []
    result = topformer(*words, *opts)
    assert result.returncode == 1 and message in result.stderr
