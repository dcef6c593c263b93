"""Boxes evaluated as pycocotools does, on results of every awkward kind."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from faster_coco_eval import COCO

from topformer_d2.analysis.coco_reference import (
    METRICS,
    evaluate_with_pycocotools,
    generate_boxes,
)
from topformer_d2.data.boxes import corners, load_boxes, register_boxes
from topformer_d2.errors import InputError
from topformer_d2.evaluation import BoxEvaluator, coco_results, evaluate_boxes


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed):
    """With crowds, images without objects, classes never seen and scores that tie."""
    truth, results = generate_boxes(60, num_classes=7, seed=seed)
    assert any(a["iscrowd"] for a in truth["annotations"])
    assert len({a["image_id"] for a in truth["annotations"]}) < 60
    assert len({a["category_id"] for a in truth["annotations"]}) < 7
    expected = evaluate_with_pycocotools(truth, results)
    assert (expected[[0, 1, 2]] > 0.1).all() and expected[0] < 0.9
    ours = evaluate_boxes(COCO(truth), results).stats[:6]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.fixture
def dataset(tmp_path):
    """A registered dataset of generated boxes, its results, and its name."""
    truth, results = generate_boxes(20, num_classes=4, seed=1)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    register_boxes("generated", str(path), str(tmp_path))
    DatasetCatalog.get("generated")  # sets the classes
    yield "generated", truth, results
    DatasetCatalog.remove("generated")
    MetadataCatalog.remove("generated")


def as_outputs(truth, results):
    """Pairs of an input and a model's output, one for each image."""
    ids = sorted(c["id"] for c in truth["categories"])
    for image in truth["images"]:
        own = [r for r in results if r["image_id"] == image["id"]]
        boxes = torch.tensor([r["bbox"] for r in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((image["height"], image["width"]))
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([r["score"] for r in own], dtype=torch.float64)
        instances.pred_classes = torch.tensor([ids.index(r["category_id"]) for r in own]).long()
        yield {"image_id": image["id"]}, {"instances": instances}


def test_evaluator_round_trip(dataset, tmp_path):
    name, truth, results = dataset
    evaluator = BoxEvaluator(name, output_dir=str(tmp_path / "out"))
    evaluator.reset()
    for record, output in as_outputs(truth, results):
        evaluator.process([record], [output])
    metrics = evaluator.evaluate()["bbox"]
    expected = 100 * evaluate_with_pycocotools(truth, results)
    # Boxes pass through float32.
    assert [metrics[key] for key in METRICS] == pytest.approx(expected.tolist(), abs=1e-3)
    names = {c["name"] for c in truth["categories"]}
    assert {key for key in metrics if key not in METRICS} == {f"AP-{name}" for name in names}
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert len(written) == len(results)
    assert {r["category_id"] for r in written} <= {c["id"] for c in truth["categories"]}
    again = evaluate_with_pycocotools(truth, written)
    assert [metrics[key] for key in METRICS] == pytest.approx((100 * again).tolist(), abs=1e-4)
    saved = json.loads((tmp_path / "out" / "bbox_evaluation.json").read_text())["metrics"]
    assert saved.keys() == metrics.keys()
    assert all(
        value is None if math.isnan(metrics[key]) else value == pytest.approx(metrics[key])
        for key, value in saved.items()
    )
    assert not list((tmp_path / "out").glob("*.pth"))


def test_nothing_found_is_zero_and_said(dataset, caplog):
    name, truth, _ = dataset
    evaluator = BoxEvaluator(name)
    evaluator.reset()
    for record, output in as_outputs(truth, []):
        evaluator.process([record], [output])
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        assert evaluator.evaluate()["bbox"]["AP"] == 0.0
    assert "generated: NOTHING WAS FOUND in 20 images" in caplog.text


def test_results_of_one_image():
    instances = Instances((50, 60))
    instances.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 11.0, 22.0]]))
    instances.scores, instances.pred_classes = torch.tensor([0.5]), torch.tensor([1])
    metadata = {"thing_dataset_id_to_contiguous_id": {3: 0, 90: 1}}
    box = {"image_id": "a", "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5}
    assert coco_results(instances, "a", metadata) == [{**box, "category_id": 90}]
    assert coco_results(instances[:0], "a", {}) == []
    with pytest.raises(InputError, match=r"class 1 was predicted, but the dataset 'x' has 1 cl"):
        coco_results(instances, "a", {"name": "x", "thing_dataset_id_to_contiguous_id": {3: 0}})


@pytest.mark.parametrize("ids", ["text", "from zero"])
def test_image_and_annotation_ids_of_any_kind(tmp_path, ids):
    """Converters write names as image ids, and number annotations from 0."""
    truth, results = generate_boxes(10, num_classes=3, seed=2)
    expected = 100 * evaluate_with_pycocotools(truth, results)
    for entry in (*truth["images"], *truth["annotations"], *results):
        key = "image_id" if "image_id" in entry else "id"
        entry[key] = f"2007_{entry[key]:06d}" if ids == "text" else entry[key] - 1
        if "bbox" in entry and "id" in entry:
            entry["id"] -= 1
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    register_boxes("odd_ids", str(path), str(tmp_path))
    DatasetCatalog.get("odd_ids")
    evaluator = BoxEvaluator("odd_ids", output_dir=str(tmp_path))
    DatasetCatalog.remove("odd_ids")
    MetadataCatalog.remove("odd_ids")
    evaluator.reset()
    for record, output in as_outputs(truth, results):
        evaluator.process([record], [output])
    metrics = evaluator.evaluate()["bbox"]
    assert [metrics[key] for key in METRICS] == pytest.approx(expected.tolist(), abs=1e-3)
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert written[0]["image_id"] in {image["id"] for image in truth["images"]}


def test_what_training_reads_is_evaluated(tmp_path):
    """No ids, a byte order mark, areas that are no numbers, true for 1; and a stale conversion."""
    truth, results = generate_boxes(10, num_classes=3, seed=2)
    expected = 100 * evaluate_with_pycocotools(truth, results)
    areas = [math.nan, None, "12", -1, [3], math.inf]
    for number, entry in enumerate(truth["annotations"]):
        del entry["id"]
        entry["iscrowd"] = bool(entry["iscrowd"])
        if number < len(areas):
            entry["area"] = areas[number]
    (tmp_path / "truth.json").write_text("\ufeff" + json.dumps(truth))
    (tmp_path / "odd_coco_format.json").write_text('{"images": []}')
    register_boxes("odd", str(tmp_path / "truth.json"), str(tmp_path))
    DatasetCatalog.get("odd")
    evaluator = BoxEvaluator("odd", output_dir=str(tmp_path))
    # As Detectron2's evaluator would have left it in this process.
    MetadataCatalog.remove("odd")
    ids = {c["id"]: i for i, c in enumerate(truth["categories"])}
    MetadataCatalog.get("odd").set(
        json_file=str(tmp_path / "odd_coco_format.json"),
        thing_classes=[c["name"] for c in truth["categories"]],
        thing_dataset_id_to_contiguous_id=ids,
    )
    metadata = dict(MetadataCatalog.get("odd").as_dict())
    records = load_boxes("other", str(tmp_path / "truth.json"), str(tmp_path))
    DatasetCatalog.remove("odd")
    DatasetCatalog.register("odd", lambda: records)
    stale = BoxEvaluator("odd", output_dir=str(tmp_path))
    assert MetadataCatalog.get("odd").as_dict() == metadata
    for name in ("odd", "other"):
        MetadataCatalog.remove(name)
    DatasetCatalog.remove("odd")
    for each in (evaluator, stale):
        for record, output in as_outputs(truth, results):
            each.process([record], [output])
        metrics = each.evaluate()["bbox"]
        assert metrics["AP"] == pytest.approx(expected[0], abs=1e-3)


def test_a_record_without_an_image_id_is_named():
    records = [{"file_name": "a.jpg", "height": 9, "width": 9, "annotations": []}]
    DatasetCatalog.register("no_ids", lambda: records)
    MetadataCatalog.get("no_ids").set(thing_classes=["a"])
    with pytest.raises(InputError, match=r"a\.jpg of dataset 'no_ids' has no 'image_id'"):
        BoxEvaluator("no_ids")
    records *= 2
    records[0]["image_id"] = 3
    with pytest.raises(InputError, match=r"a\.jpg .* has another's 'image_id' 3"):
        BoxEvaluator("no_ids")
    DatasetCatalog.remove("no_ids")
    MetadataCatalog.remove("no_ids")


def test_records_without_a_json_are_converted(tmp_path, synthetic_dataset):
    """Datasets that are registered by a function, as Detectron2 allows."""
    records = DatasetCatalog.get("synthetic_boxes_val")
    DatasetCatalog.register("by_function", lambda: records)
    MetadataCatalog.get("by_function").set(thing_classes=list("abcde"))
    evaluator = BoxEvaluator("by_function", output_dir=str(tmp_path))
    DatasetCatalog.remove("by_function")
    MetadataCatalog.remove("by_function")
    assert len(evaluator._truth.anns) == sum(len(r["annotations"]) for r in records)
    evaluator.reset()
    for record in records:
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = Boxes(torch.tensor([corners(a) for a in record["annotations"]]))
        found.pred_classes = torch.tensor([a["category_id"] for a in record["annotations"]])
        found.scores = torch.ones(len(found))
        evaluator.process([record], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
