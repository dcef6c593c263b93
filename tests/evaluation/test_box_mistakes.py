"""What a detector gets wrong, from its evaluation's detections."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.evaluation.test_coco import as_outputs
from topformer_d2.analysis.coco_reference import generate_boxes
from topformer_d2.data.boxes import register_boxes
from topformer_d2.data.suspects import read_suspects, write_suspects
from topformer_d2.errors import InputError
from topformer_d2.evaluation import BoxEvaluator, BoxMistakes
from topformer_d2.evaluation.box_mistakes import suspected_boxes, worst_images
from topformer_d2.evaluation.tide import IGNORED, RIGHT

NAME = "generated_mistakes"


@pytest.fixture
def register(tmp_path):
    """Registers a COCO JSON's content as NAME."""

    def make(truth):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(truth))
        register_boxes(NAME, str(path), str(tmp_path))
        DatasetCatalog.get(NAME)  # sets the classes

    yield make
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def evaluate(evaluator, truth, results):
    evaluator.reset()
    for record, output in as_outputs(truth, results):
        evaluator.process([record], [output])
    return evaluator.evaluate()


def test_ap50_and_results_are_the_evaluations(register):
    truth, results = generate_boxes(40, num_classes=5, seed=1)
    register(truth)
    evaluator = BoxMistakes(NAME)
    found = evaluate(evaluator, truth, results)
    plain = evaluate(BoxEvaluator(NAME), truth, results)
    assert found["bbox"] == pytest.approx(plain["bbox"], nan_ok=True)
    matched = evaluator.matched
    assert (matched.kinds == IGNORED).any() and matched.crowd.any()
    assert np.nanmean(matched.ap50()) == pytest.approx(found["bbox"]["AP50"], abs=0.2)
    assert len(evaluator.images) == 40
    worst = worst_images(evaluator, 0.0, 5)
    for each in worst:
        kinds = matched.kinds[each.image.found]
        objects = (~matched.crowd[each.image.truth]).sum()
        assert each.missed == objects - (kinds == RIGHT).sum()
    assert [w.missed for w in worst] == sorted((w.missed for w in worst), reverse=True)


def scene(boxes, detections):
    """A truth and results of one image each; boxes are (category, x, score)."""
    images = [{"id": i + 1, "file_name": f"{i}.jpg", "height": 99, "width": 99} for i in range(2)]
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": c, "bbox": [x, 10, 10, 10], "area": 100}
        for n, (c, x) in enumerate(boxes)
    ]
    found = [
        {"image_id": 1, "category_id": c, "bbox": [x, 10, 10, 10], "score": s}
        for c, x, s in detections
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}, found


def test_suspects_are_what_the_model_is_sure_of(register, tmp_path):
    truth, results = scene(
        [(1, 0), (1, 30), (2, 60)],
        [
            (1, 0, 0.9),  # right
            (2, 0, 0.8),  # another class of an object that is found with a higher score
            (2, 30, 0.7),  # another class: is the label wrong?
            (1, 85, 0.6),  # nothing there: is a label missing?
            (1, 85.5, 0.5),  # the same again
            (2, 67, 0.4),  # near the dog
        ],
    )
    register(truth)
    evaluator = BoxMistakes(NAME)
    evaluate(evaluator, truth, results)
    suspects = suspected_boxes(evaluator)
    assert [(s.kind, s.labelled, s.predicted) for s in suspects] == [
        ("class", "cat", "dog"),
        ("missing", None, "cat"),
        ("place", "dog", "dog"),
    ]
    assert suspects[1].box == (85, 10, 95, 20)
    file = tmp_path / "suspects.json"
    write_suspects(file, suspects)
    assert read_suspects(str(file)) == suspects


def test_nothing_found_and_nothing_to_find(register):
    truth, results = scene([(1, 0)], [])
    register(truth)
    evaluator = BoxMistakes(NAME)
    evaluate(evaluator, truth, results)
    assert suspected_boxes(evaluator) == []
    assert [w.missed for w in worst_images(evaluator, 0.0, 5)] == [1]


GOOD = {
    "file_name": "a.jpg",
    "kind": "region",
    "box": [0, 0, 1, 1],
    "labelled": "a",
    "predicted": "b",
    "confidence": 0.5,
}


@pytest.mark.parametrize(
    "change, named",
    [
        ({"kind": "odd"}, "kind"),
        ({"box": [0, 1]}, "box"),
        ({"box": [0, 0, 1, float("nan")]}, "box"),
        ({"predicted": None}, "predicted"),
        ({"more": 1}, "file_name"),
        (None, "list"),
    ],
)
def test_another_list_is_refused_by_its_file_and_entry(tmp_path, change, named):
    file = tmp_path / "list.json"
    file.write_text(json.dumps([GOOD, {**GOOD, **change}] if change is not None else {"a": 1}))
    with pytest.raises(InputError, match=named) as caught:
        read_suspects(str(file))
    assert str(file) in str(caught.value) and (change is None or "entry 2" in str(caught.value))
