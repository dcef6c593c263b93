"""A COCO JSON that is made to other records keeps its ids of images and categories."""

import json

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from tests.data.labelling.writers import write_image
from topformer_d2.data.coco_truth import box_truth
from topformer_d2.data.registered import load_records
from topformer_d2.evaluation.coco import BoxEvaluator

IDS = {"a": 139, "b": 7, "c": 512}
CATEGORIES = {18: "dog", 3: "cat", 90: "owl"}


def write(root, make_id=int):
    for name in IDS:
        write_image(root / "images" / f"{name}.jpg")
    content = {
        "images": [{"id": make_id(i), "file_name": f"{n}.jpg"} for n, i in IDS.items()],
        "annotations": [
            {"id": n, "image_id": make_id(i), "category_id": c, "bbox": [2, 3, 9, 9]}
            for n, (i, c) in enumerate(zip(IDS.values(), CATEGORIES, strict=True), 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in CATEGORIES.items()],
    }
    # Without the images' sizes it is not used as it lies.
    (root / "boxes.json").write_text(json.dumps(content))
    return {"IMAGES": str(root / "images"), "BOXES": str(root / "boxes.json")}


@pytest.mark.parametrize("make_id", [int, str])
def test_predictions_have_the_ids_of_the_file(tmp_path, register, make_id):
    entry = write(tmp_path, make_id)
    for _ in range(2):  # the second time from the cache
        metadata = register(**entry)
        ids = metadata.thing_dataset_id_to_contiguous_id
        assert [metadata.thing_classes[i] for i in ids.values()] == ["cat", "dog", "owl"]
        assert [*ids] == [3, 18, 90]
        records = load_records("own")
        assert [record["image_id"] for record in records] == [139, 7, 512]
    truth = box_truth("own", records)
    assert {(a["image_id"], a["category_id"]) for a in truth["annotations"]} == {
        *((139, 18), (7, 3), (512, 90))
    }
    evaluator = BoxEvaluator("own", output_dir=str(tmp_path / "out"), distributed=False)
    evaluator.reset()
    for record in records:
        found = Instances((30, 40), pred_boxes=Boxes(torch.tensor([[2.0, 3, 11, 12]])))
        found.pred_classes = torch.tensor([record["annotations"][0]["category_id"]])
        found.scores = torch.tensor([0.9])
        evaluator.process([record], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    results = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in results] == [(139, 18), (7, 3), (512, 90)]


@pytest.mark.parametrize(
    ("keys", "classes", "ids"),
    [
        ({"LABEL_MAP": {"dog": "wolf"}}, ["cat", "wolf", "owl"], [3, 18, 90]),
        ({"IGNORE": [18]}, ["cat", "owl"], [3, 90]),
        ({"LABEL_MAP": {"dog": "cat"}}, ["cat", "owl"], [1, 2]),
        ({"CLASSES": ["owl", "dog", "cat"]}, ["owl", "dog", "cat"], [1, 2, 3]),
    ],
)
def test_categories_that_are_joined_or_listed_are_numbered(tmp_path, register, keys, classes, ids):
    metadata = register(**write(tmp_path), **keys)
    assert metadata.thing_classes == classes
    assert [*metadata.thing_dataset_id_to_contiguous_id] == ids
    assert load_records("own")[0]["image_id"] == 139


def test_ids_that_are_words_or_missing_are_the_files(tmp_path, register):
    register(**write(tmp_path, lambda i: f"x{i}"))
    assert [r["image_id"] for r in load_records("own")] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [*MetadataCatalog.get("own").thing_dataset_id_to_contiguous_id] == [1, 2, 3]
