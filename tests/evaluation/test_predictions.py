"""A Predictor's label maps held against a dataset."""

import dataclasses

import numpy as np
import pytest

from topformer_d2 import InputError, Scene, get_config
from topformer_d2.evaluation.predictions import evaluate_labels
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
    found = evaluate_labels(Constant(info), DATASET)
    assert found["ACC-ground"] == 100 and found["IoU-disc"] == 0


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (ModelInfo.from_config(get_config("det_retinanet_topformer_t")), "labels no pixels"),
        (renamed(INFO, names=NUMBERED[1:]), "has 6 classes, the model 5"),
        (
            renamed(INFO, names=(*INFO.pixels.names[:5], "moon")),
            f"class 5 of {DATASET!r} is {INFO.pixels.names[5]!r}, the model's is 'moon'",
        ),
    ],
)
def test_other_classes_are_refused(info, message):
    with pytest.raises(InputError, match=message):
        evaluate_labels(Constant(info), DATASET)
