"""Top-1 and top-5 against a direct count."""

import json

import numpy as np
import pytest
import torch

from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError
from topformer_d2.evaluation import ConfusionEvaluator, TopAccuracy, build_evaluator, check_needs
from topformer_d2.evaluation.top_accuracy import ranks


def test_ranks_against_sorting():
    rng = np.random.default_rng(0)
    logits = rng.permutation(200 * 9).reshape(200, 9).astype(np.float32)  # no ties
    truth = rng.integers(9, size=200)
    order = np.argsort(-logits, axis=1)
    expected = [int(np.flatnonzero(order[i] == truth[i])[0]) for i in range(200)]
    assert ranks(torch.from_numpy(logits), torch.from_numpy(truth)).tolist() == expected
    assert len(set(expected)) == 9


def test_a_model_that_says_nothing_is_never_right():
    assert ranks(torch.zeros(3, 9), torch.tensor([0, 4, 8])).tolist() == [8, 8, 8]


@pytest.fixture
def evaluator(tiny_classifier, tmp_path):
    cfg = tiny_classifier()
    made = build_evaluator(cfg, "pets_val", str(tmp_path / "results"))
    assert type(made) is TopAccuracy
    return made


def test_shares_of_a_dataset(evaluator, tmp_path):
    records = load_records("pets_val")
    assert [r["class_id"] for r in records] == [0, 0, 0, 1, 1, 1]
    # Rank of the right class in each image: 0, 1, 6, 0, 4, 5, of 8 classes.
    logits = torch.zeros(6, 8) - torch.arange(8.0)
    for i, rank in enumerate((0, 1, 6, 0, 4, 5)):
        logits[i, records[i]["class_id"]] = -rank + 0.5 if rank else 1.0
        if records[i]["class_id"] > rank:
            logits[i] = torch.tensor([0.0, 1.0, *[-1.0] * 6])
    found = ranks(logits, torch.tensor([r["class_id"] for r in records])).numpy()
    for part in (slice(0, 4), slice(4, 6)):
        evaluator.process(records[part], [{"cls": row} for row in logits[part]])
    metrics = evaluator.evaluate()["cls"]
    expected = {"top1": 100 * np.mean(found < 1), "top5": 100 * np.mean(found < 5)}
    assert metrics == pytest.approx(expected) and 0 < metrics["top1"] < metrics["top5"] < 100
    saved = json.loads((tmp_path / "results/cls_evaluation.json").read_text())
    assert saved == {"metrics": metrics, "images": 6}
    evaluator.reset()
    assert np.isnan(evaluator.evaluate()["cls"]["top1"])


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ({"sem_seg": torch.zeros(2)}, "'cls'.*TopAccuracy"),
        ({"cls": torch.zeros(1)}, "class 1.*MODEL.CLS_HEAD.NUM_CLASSES"),
        ({"cls": torch.tensor([0.0, float("nan")])}, "NaN"),
    ],
)
def test_outputs_that_cannot_be_counted(evaluator, output, named):
    with pytest.raises(InputError, match=named):
        evaluator.process(load_records("pets_val")[3:4], [output])


def test_other_tasks_evaluators_are_refused(evaluator):
    check_needs(evaluator, ("cls",))
    with pytest.raises(InputError, match=r"TopAccuracy evaluates 'cls'.*sem_seg"):
        check_needs(evaluator, ("sem_seg",))
    with pytest.raises(InputError, match=r"ConfusionEvaluator evaluates 'sem_seg'.*cls"):
        check_needs(ConfusionEvaluator("synthetic_sem_seg_val"), ("cls",))


def test_there_is_no_report_of_mistakes(tiny_classifier, tmp_path):
    with pytest.raises(InputError, match="'cls'"):
        build_evaluator(tiny_classifier(), "pets_val", str(tmp_path), mistakes=True)
