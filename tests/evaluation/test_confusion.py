"""The streamed confusion matrix against direct computations and Detectron2's evaluator."""

import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError
from topformer_d2.evaluation import ConfusionEvaluator, build_evaluator
from topformer_d2.evaluation.confusion import confusion_matrix, metrics_from_confusion

DATASET = "synthetic_sem_seg_val"


@pytest.mark.parametrize("ignore_label", [255, 0, 5])
def test_confusion_matrix_counts_pixel_by_pixel(ignore_label):
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 3, 4, ignore_label], (13, 17)).astype(np.uint8)
    prediction = rng.integers(0, 5, (13, 17))
    expected = np.zeros((5, 5), np.int64)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != ignore_label:
            expected[t, p] += 1
    assert np.array_equal(confusion_matrix(prediction, truth, 5, ignore_label), expected)


def test_metrics_by_hand():
    # Class c is never there; d is predicted only.
    matrix = np.array([[6, 2, 0, 0], [1, 9, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    metrics = metrics_from_confusion(matrix, list("abcd"))
    assert metrics["IoU-a"] == pytest.approx(100 * 6 / 9)
    assert metrics["IoU-b"] == pytest.approx(100 * 9 / 14)
    assert np.isnan(metrics["IoU-c"]) and metrics["IoU-d"] == 0
    assert metrics["mIoU"] == pytest.approx(100 * (6 / 9 + 9 / 14 + 0) / 3)
    assert metrics["mACC"] == pytest.approx(100 * (6 / 8 + 9 / 12) / 2)
    assert metrics["pACC"] == pytest.approx(75)
    assert metrics["fwIoU"] == pytest.approx(100 * (6 / 9 * 8 + 9 / 14 * 12) / 20)


def test_no_labelled_pixel_is_nan_and_not_an_error():
    metrics = metrics_from_confusion(np.zeros((3, 3), np.int64), list("abc"))
    assert np.isnan(metrics["mIoU"]) and np.isnan(metrics["pACC"])


def test_equals_detectron2s_evaluator(tmp_path):
    ours, theirs = ConfusionEvaluator(DATASET, output_dir=str(tmp_path)), SemSegEvaluator(DATASET)
    theirs.reset()
    generator = torch.Generator().manual_seed(0)
    for record in DatasetCatalog.get(DATASET):
        logits = torch.randn(6, 64, 80, generator=generator)
        logits[4] = -9  # a class that is never predicted
        for evaluator in (ours, theirs):
            evaluator.process([record], [{"sem_seg": logits}])
    expected = theirs.evaluate()["sem_seg"]
    got = ours.evaluate()["sem_seg"]
    assert got.keys() <= expected.keys()  # its main branch adds a boundary IoU
    for key, value in got.items():
        assert value == pytest.approx(float(expected[key]), abs=1e-9, nan_ok=True), key
    saved = json.loads((tmp_path / "sem_seg_evaluation.json").read_text())
    assert saved["metrics"]["mIoU"] == got["mIoU"]


def test_label_maps_and_logits_give_the_same():
    record = DatasetCatalog.get(DATASET)[0]
    logits = torch.randn(6, 64, 80, generator=torch.Generator().manual_seed(1))
    results = []
    for output in ({"sem_seg": logits}, {"sem_seg": logits.argmax(0)}, logits.argmax(0)):
        evaluator = ConfusionEvaluator(DATASET)
        evaluator.process([record], [output])
        results.append(evaluator.matrix)
    assert results[0].sum() == 64 * 80
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_reset_forgets():
    evaluator = ConfusionEvaluator(DATASET)
    evaluator.update(np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8))
    evaluator.reset()
    assert not evaluator.matrix.any()


def test_unusable_truth_is_named(tmp_path):
    record = dict(DatasetCatalog.get(DATASET)[0])
    evaluator = ConfusionEvaluator(DATASET)
    with pytest.raises(InputError, match=r"\(64, 80\).*\(32, 40\)"):
        evaluator.process([record], [torch.zeros(32, 40, dtype=torch.int64)])
    bad = tmp_path / "bad.png"
    Image.fromarray(np.full((64, 80), 33, np.uint8)).save(bad)
    evaluator._label_files[record["file_name"]] = str(bad)
    with pytest.raises(InputError, match=r"bad\.png: label 33"):
        evaluator.process([record], [torch.zeros(64, 80, dtype=torch.int64)])


def test_builder(tiny_config, tmp_path):
    built = build_evaluator(tiny_config(), DATASET, str(tmp_path))
    assert isinstance(built, ConfusionEvaluator)
    with pytest.raises(InputError, match="evaluator_type 'lvis'"):
        build_evaluator(tiny_config(), "lvis_v1_val", str(tmp_path))
    with pytest.raises(InputError, match="evaluator_type 'lvis'"):  # before training, not after
        Trainer(tiny_config("DATASETS.TEST", "('lvis_v1_val',)"))


@pytest.mark.parametrize(("value", "words"), [(0, "'ground' alone"), (255, "have none")])
def test_truth_of_one_class_is_warned_of(caplog, value, words):
    evaluator = ConfusionEvaluator(DATASET)
    truth = np.full((4, 5), 255, np.uint8)
    truth[0] = value
    evaluator.update(np.zeros((4, 5), np.int64), truth)
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        evaluator.evaluate()
    assert "mIoU SAYS NOTHING" in caplog.text and words in caplog.text
    caplog.clear()
    truth[1] = 1
    evaluator.update(np.zeros((4, 5), np.int64), truth)
    truth[2] = 2
    evaluator.update(np.zeros((4, 5), np.int64), truth)
    evaluator.evaluate()
    assert "mIoU SAYS NOTHING" not in caplog.text
