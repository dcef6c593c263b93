"""What a dataset and its records are labelled for."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from topformer_d2 import get_config
from topformer_d2.data.labelled import flag_tasks, has_task, tasks_of
from topformer_d2.errors import InputError
from topformer_d2.evaluation import BoxEvaluator
from topformer_d2.visualization import Painter

PIXELS = {"file_name": "a.png", "sem_seg_file_name": "a_label.png"}
BOXES = {"file_name": "b.png", "annotations": []}


def test_tasks_are_flags_and_no_guesses_from_emptiness():
    assert tasks_of([BOXES]) == ("instances",) and tasks_of([]) == ()
    flagged = flag_tasks([BOXES, {"file_name": "c.png"}])  # boxes alone: one without objects
    assert [r["tasks"] for r in flagged] == [("instances",)] * 2
    assert [r["tasks"] for r in flag_tasks([{**PIXELS, **BOXES}])] == [("sem_seg", "instances")]
    own = [{**PIXELS, "tasks": ("sem_seg",)}, {**BOXES, "tasks": ("instances",)}]
    assert flag_tasks(own) == own


@pytest.mark.parametrize("record", [PIXELS, BOXES], ids=["pixels", "boxes"])
def test_a_record_of_both_that_lacks_one_is_named(record):
    missing = "annotations" if record is PIXELS else "sem_seg_file_name"
    with pytest.raises(InputError, match=rf"{record['file_name']} has no '{missing}'.*\"tasks\""):
        flag_tasks([{**PIXELS, **BOXES}, record])


def test_cityscapes_of_pixels_has_no_boxes():
    name = "cityscapes_fine_sem_seg_val"
    assert MetadataCatalog.get(name).thing_classes
    assert has_task(name, "sem_seg") and not has_task(name, "instances")
    tests = ["DATASETS.TRAIN", "()", "DATASETS.TEST", f"('{name}', 'synthetic_boxes_val')"]
    cfg = get_config("multitask_lite_topformer_t", tests)
    painter = Painter(cfg)
    assert (painter.info.pixels.dataset, painter.info.objects.dataset) == (
        name,
        "synthetic_boxes_val",
    )


@pytest.fixture
def partly_labelled():
    """A dataset with both kinds of labels whose first image is one of pixels alone."""
    records = [dict(r) for r in DatasetCatalog.get("synthetic_multitask_val")]
    records[0] = {**records[0], "tasks": ("sem_seg",)}
    records[1] = {**records[1], "tasks": ("instances",)}
    del records[1]["sem_seg_file_name"]
    name = "partly_labelled"
    DatasetCatalog.register(name, lambda: records)
    source = MetadataCatalog.get("synthetic_multitask_val").as_dict()
    MetadataCatalog.get(name).set(**{k: v for k, v in source.items() if k != "name"})
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_images_without_boxes_do_not_count_in_ap(partly_labelled):
    def ap(name, skipped):
        evaluator = BoxEvaluator(name, distributed=False)
        results = []
        for record in DatasetCatalog.get(name)[skipped:]:
            for annotation in record["annotations"]:
                kept = {k: annotation[k] for k in ("bbox", "category_id")}
                results.append({**kept, "image_id": record["image_id"], "score": 0.9})
        # What is found where there are no boxes to compare with.
        first = DatasetCatalog.get(name)[0]["image_id"]
        results += [
            {"image_id": first, "bbox": [0, 0, 5 + i, 5], "category_id": 0, "score": 1.0}
            for i in range(9)
        ]
        evaluator.reset()
        evaluator._predictions = [{"instances": results}]
        return evaluator.evaluate()["bbox"]["AP"]

    assert ap(partly_labelled, 1) == pytest.approx(100)
    assert ap("synthetic_multitask_val", 1) < 90
