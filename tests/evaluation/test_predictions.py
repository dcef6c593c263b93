"""A Predictor's label maps held against a dataset."""

import dataclasses

import numpy as np
import pytest
from detectron2.structures import BoxMode

from topformer_d2 import InputError, Scene, get_config
from topformer_d2.data.images import read_label
from topformer_d2.data.registered import load_records
from topformer_d2.evaluation.predictions import evaluate_tasks, find_label_mistakes
from topformer_d2.inference.model_info import ModelInfo

DATASET = "synthetic_sem_seg_val"


class Constant:
    """A Predictor that labels every pixel alike."""

    def __init__(self, info):
        self.info = info

    def __call__(self, image):
        return Scene(label=np.zeros(image.shape[:2], np.uint8))


def renamed(info, **changes):
    return dataclasses.replace(info, pixels=dataclasses.replace(info.pixels, **changes))


INFO = ModelInfo.from_config(get_config("seg_topformer_t_synthetic"))
NUMBERED = [f"class {i}" for i in range(6)]


@pytest.mark.parametrize("info", [INFO, renamed(INFO, names=NUMBERED, dataset="")])
def test_one_class_everywhere(info):
    found = evaluate_tasks(Constant(info), DATASET)["sem_seg"]
    assert found["ACC-ground"] == 100 and found["IoU-disc"] == 0


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (renamed(INFO, names=NUMBERED[1:]), "has 6 classes, the model 5"),
        (
            renamed(INFO, names=(*INFO.pixels.names[:5], "moon")),
            f"class 5 of {DATASET!r} is {INFO.pixels.names[5]!r}, the model's is 'moon'",
        ),
    ],
)
def test_other_classes_are_refused(info, message):
    with pytest.raises(InputError, match=message):
        evaluate_tasks(Constant(info), DATASET)


def test_a_model_without_pixels_has_no_mistakes_of_labels():
    info = ModelInfo.from_config(get_config("det_retinanet_topformer_t"))
    with pytest.raises(InputError, match="labels no pixels"):
        find_label_mistakes(Constant(info), DATASET)


class Truth:
    """A Predictor that finds what is labelled; `shift` moves its boxes."""

    def __init__(self, config, dataset, shift=0.0):
        self.info = ModelInfo.from_config(get_config(config))
        self.records = load_records(dataset)
        self.shift, self.calls = shift, 0

    def __call__(self, image):
        record = self.records[self.calls % len(self.records)]
        self.calls += 1
        boxes = np.array([each["bbox"] for each in record["annotations"]], np.float32)
        boxes = boxes.reshape(-1, 4)
        if len(boxes) and record["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS:
            boxes[:, 2:] += boxes[:, :2]
        classes = np.array([each["category_id"] for each in record["annotations"]], np.int64)
        file = record.get("sem_seg_file_name")
        return Scene(
            size=image.shape[:2],
            label=None if file is None else read_label(file),
            boxes=boxes + self.shift,
            classes=classes,
            scores=np.ones(len(boxes), np.float32),
        )


JOINT = "multitask_lite_topformer_t_synthetic"


def test_each_task_that_the_model_and_the_dataset_have():
    found = evaluate_tasks(Truth(JOINT, "synthetic_multitask_val"), "synthetic_multitask_val")
    assert set(found) == {"sem_seg", "bbox"}
    assert found["sem_seg"]["mIoU"] == pytest.approx(100)
    assert found["bbox"]["AP"] == pytest.approx(100)
    found = evaluate_tasks(Truth(JOINT, "synthetic_boxes_val", shift=4), "synthetic_boxes_val")
    assert set(found) == {"bbox"} and 0 < found["bbox"]["AP"] < 90


def test_a_dataset_without_the_models_labels_is_refused():
    with pytest.raises(InputError, match="'synthetic_boxes_val' has no pixel labels"):
        evaluate_tasks(Constant(INFO), "synthetic_boxes_val")
    with pytest.raises(InputError, match="has 6 classes, the model 5"):
        evaluate_tasks(Constant(renamed(INFO, names=NUMBERED[1:])), DATASET)
