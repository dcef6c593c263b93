"""What a segmenter gets wrong, gathered in one pass: against direct computations."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from topformer_d2.data.images import read_label
from topformer_d2.engine import Trainer
from topformer_d2.evaluation import ConfusionEvaluator, PixelMistakes
from topformer_d2.evaluation.pixel_mistakes import image_miou
from topformer_d2.evaluation.regions import wrong_regions
from topformer_d2.evaluation.top import Top
from topformer_d2.inference import label_map
from topformer_d2.inference.sampled_confidence import sampled_confidence

DATASET = "synthetic_sem_seg_val"


@pytest.mark.parametrize("size, resized", [((64, 80), (64, 80)), ((50, 33), (64, 48))])
def test_the_sampled_confidence_is_the_label_maps(size, resized):
    logits = 3 * torch.randn(7, 8, 10, generator=torch.Generator().manual_seed(0))
    _, whole = label_map(logits, size, input_size=resized, confidence=True)
    found = sampled_confidence(logits, size, resized)
    torch.testing.assert_close(found, whole[::4, ::4], atol=2e-4, rtol=0)


def test_an_evaluation_that_gathers_mistakes_has_the_same_results(tiny_config):
    cfg = tiny_config()
    model = build_model(cfg)
    torch.nn.init.normal_(model.sem_seg_head.classifier.weight)
    evaluator = PixelMistakes(DATASET)
    found = Trainer.test(cfg, model, [evaluator])["sem_seg"]
    expected = Trainer.test(cfg, model, [ConfusionEvaluator(DATASET)])["sem_seg"]
    assert found == pytest.approx(expected, nan_ok=True)
    findings = evaluator.findings
    samples = sum(
        (read_label(r["sem_seg_file_name"])[::4, ::4] != 255).sum()
        for r in DatasetCatalog.get(DATASET)
    )
    assert findings.reliability.count.sum() == samples
    worst = findings.worst.items()
    assert len(worst) == 4
    assert [w.miou for w in worst] == sorted(w.miou for w in worst)
    for image in worst:
        record = next(r for r in DatasetCatalog.get(DATASET) if r["file_name"] == image.file_name)
        truth, prediction = read_label(record["sem_seg_file_name"]), image.prediction()
        ious = [
            ((prediction == k) & (truth == k)).sum()
            / ((truth == k) | ((prediction == k) & (truth != 255))).sum()
            for k in set(np.unique(truth)) - {255}
        ]
        assert image.miou == pytest.approx(100 * np.mean(ious))


def test_logits_give_the_confidence_where_the_model_does_not():
    (record, *_) = DatasetCatalog.get(DATASET)
    logits = torch.randn(6, 64, 80, generator=torch.Generator().manual_seed(1))
    evaluator = PixelMistakes(DATASET)
    evaluator.process([record], [{"sem_seg": logits}])
    probability = logits.softmax(0).amax(0)[::4, ::4].numpy()
    seen = read_label(record["sem_seg_file_name"])[::4, ::4] != 255
    assert evaluator.findings.reliability.total.sum() == pytest.approx(probability[seen].sum())


def test_wrong_regions_are_found_with_their_confidence():
    truth = np.zeros((40, 60), np.uint8)
    prediction, sure = truth.copy(), np.full((40, 60), 0.5, np.float32)
    prediction[8:20, 8:28] = 2  # one region, and another of the same confusion
    prediction[30:38, 40:48] = 2
    sure[8:20, 8:28], sure[30:38, 40:48] = 0.9, 0.7
    prediction[0, 0] = 1  # too small
    matrix = np.zeros((3, 3), np.int64)
    np.add.at(matrix, (truth, prediction), 1)
    found = list(wrong_regions(prediction, truth, sure[::4, ::4], matrix))
    assert [(r.truth, r.predicted, r.box, r.pixels) for r in found] == [
        (0, 2, (8, 8, 28, 20), 240),
        (0, 2, (40, 30, 48, 38), 64),
    ]
    assert [r.confidence for r in found] == pytest.approx([0.9, 0.7])


def test_label_errors_are_the_surest_suspects():
    """Of a model that is right but for noise, wrong labels come before its own errors."""
    g = np.random.default_rng(0)
    evaluator, planted = PixelMistakes(DATASET), set()
    for n in range(30):
        right = cv2.resize(g.integers(0, 5, (5, 6), dtype=np.uint8), (60, 50), interpolation=0)
        prediction, sure = right.copy(), g.uniform(0.9, 0.99, (50, 60)).astype(np.float32)
        y, x = g.integers(0, 30, 2)
        prediction[y : y + 9, x : x + 9] = 5  # the model's error, of which it is not sure
        sure[y : y + 9, x : x + 9] = g.uniform(0.3, 0.6)
        truth = right.copy()
        if n % 6 == 0:
            planted.add(str(n))
            truth[20:40, 30:50] = (right[30, 40] + 1) % 5
        evaluator.add(str(n), prediction, truth, sure[::4, ::4])
    suspects = evaluator.suspects()
    sure = [s.confidence > 0.9 for s in suspects]
    assert sure == sorted(sure, reverse=True) and not all(sure)
    assert {s.file_name for s, is_sure in zip(suspects, sure, strict=True) if is_sure} == planted


def test_memory_does_not_grow_with_the_images():
    g = np.random.default_rng(0)
    sizes, evaluator = [], PixelMistakes(DATASET)
    for n in range(120):
        truth, prediction = (
            cv2.resize(each, (60, 50), interpolation=0)
            for each in g.integers(0, 6, (2, 5, 6), dtype=np.uint8)
        )
        evaluator.add(f"{n:03}", prediction, truth, g.random((13, 15), dtype=np.float32))
        if n in (59, 119):
            sizes.append(len(pickle.dumps(evaluator.findings)))
    assert evaluator.num_images == 120
    assert sizes[1] < 1.1 * sizes[0] < 500_000


def test_findings_of_processes_are_those_of_one():
    g = np.random.default_rng(3)
    whole, parts = PixelMistakes(DATASET), [PixelMistakes(DATASET) for _ in range(2)]
    for n in range(20):
        truth, prediction = (
            cv2.resize(each, (60, 50), interpolation=0)
            for each in g.integers(0, 6, (2, 5, 6), dtype=np.uint8)
        )
        for evaluator in (whole, parts[n % 2]):
            sure = np.random.default_rng(n).random((13, 15))
            evaluator.add(str(n), prediction, truth, sure)
    merged = parts[0].findings
    merged.merge(parts[1].findings)
    assert merged.worst.items() == whole.findings.worst.items()
    assert merged.suspects.items() == whole.findings.suspects.items()
    assert merged.reliability.ece() == pytest.approx(whole.findings.reliability.ece())
    for pair, top in whole.findings.examples.items():
        assert [p.region.pixels for p in merged.examples[pair].items()] == [
            p.region.pixels for p in top.items()
        ]


def test_top_keeps_the_largest_and_of_equal_keys_the_first():
    top = Top(3)
    for key, item in [(1, "a"), (5, "b"), (1, "c"), (5, "d"), (0, "e"), (1, "f")]:
        top.add(key, item)
    assert top.items() == ["b", "d", "a"]
    assert not top.wants(1) and top.wants(2)


def test_an_image_without_labels_is_not_the_worst():
    assert image_miou(np.zeros((3, 3), np.int64)) == np.inf
    assert image_miou(np.array([[2, 2], [0, 0]])) == 50


def test_without_confidence_there_are_regions_and_no_suspects():
    g = np.random.default_rng(5)
    plain, sure = PixelMistakes(DATASET, confidence=False), PixelMistakes(DATASET)
    assert (plain.needs, sure.needs) == ("label_map", "confidence")
    for n in range(6):
        truth, prediction = (
            cv2.resize(each, (60, 50), interpolation=0)
            for each in g.integers(0, 6, (2, 5, 6), dtype=np.uint8)
        )
        plain.add(str(n), prediction, truth, None)
        sure.add(str(n), prediction, truth, g.random((13, 15)))
    assert plain.suspects() == [] != sure.suspects()
    assert plain.findings.reliability.count.sum() == 0
    assert plain.findings.worst.items() == sure.findings.worst.items()
    assert plain.findings.examples.keys() == sure.findings.examples.keys()
    for pair, top in plain.findings.examples.items():
        expected = sure.findings.examples[pair].items()
        assert [p.region.pixels for p in top.items()] == [p.region.pixels for p in expected]
        assert {p.region.confidence for p in top.items()} == {None}
