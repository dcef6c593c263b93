"""A Scene as other libraries take it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask

from topformer_d2 import InputError, Scene, get_config
from topformer_d2.data.class_table import ClassTable
from topformer_d2.inference.model_info import ModelInfo

LABEL = np.array([[0, 0, 2], [2, 2, 0]], np.uint8)


@pytest.fixture
def scene():
    info = ModelInfo.from_config(get_config("multitask_lite_topformer_t_synthetic"))
    names = ("cat", "dog", "cow")
    table = ClassTable(names, ((0, 0, 0),) * 3)
    return Scene(
        label=LABEL,
        boxes=[[0, 0, 2, 1], [1, 0, 3, 2]],
        classes=[2, 1],
        scores=[0.75, 0.25],
        info=replace(info, pixels=table, objects=table),
    )


def test_what_a_scene_holds_are_arrays(scene):
    assert scene.boxes.dtype == scene.scores.dtype == np.float32
    assert scene.classes.dtype == np.int64 and scene.size == (2, 3)
    assert (scene.scores > 0.5).tolist() == [True, False]
    assert scene.boxes[scene.classes == 2].tolist() == [[0, 0, 2, 1]]
    assert (scene.above(0.5).classes == [2]).all() and scene.above(0.9).boxes.shape == (0, 4)
    assert scene.enlarged(2).size == (4, 6)
    empty = Scene()
    assert (empty.boxes.shape, empty.classes.shape, empty.scores) == ((0, 4), (0,), None)
    with pytest.raises(InputError, match="2 boxes has 1 classes"):
        Scene(boxes=np.zeros((2, 4)), classes=[1])


def test_detectron2s_instances(scene):
    found = scene.to_instances()
    assert found.image_size == (2, 3) and found.pred_classes.tolist() == [2, 1]
    assert found.scores.tolist() == [0.75, 0.25]
    torch.testing.assert_close(found.pred_boxes.tensor, torch.from_numpy(scene.boxes))
    truth = replace(scene, scores=None).to_instances()
    assert truth.gt_classes.tolist() == [2, 1] and not truth.has("scores")
    with pytest.raises(InputError, match="size is unknown"):
        Scene(boxes=[[0, 0, 1, 1]], classes=[0]).to_instances()


def test_plain_python_for_json(scene):
    found = json.loads(json.dumps(scene.to_dict(), allow_nan=False))
    assert found["size"] == [2, 3] and len(found["boxes"]) == 2
    first = {"box": [0, 0, 2, 1], "class": 2, "score": 0.75, "name": "cow"}
    assert found["boxes"][0] == first
    label = np.full((2, 3), 255)
    for entry in found["label"]:
        pixels = mask.decode(entry["rle"]) == 1
        assert pixels.sum() == entry["pixels"]
        label[pixels] = entry["class"]
    assert np.array_equal(label, LABEL) and [e["name"] for e in found["label"]] == ["cat", "cow"]
    truth = replace(scene, scores=None, info=None, label=None).to_dict()
    assert truth["label"] is None
    assert truth["boxes"][1] == {"box": [1, 0, 3, 2], "class": 1, "score": None}
    assert Scene().to_dict() == {"size": None, "boxes": [], "label": None}


def test_supervisions_detections(scene):
    pytest.importorskip("supervision")
    found = scene.to_supervision()
    assert found.class_id.tolist() == [2, 1] and found.confidence.tolist() == [0.75, 0.25]
    assert found.data["class_name"].tolist() == ["cow", "dog"]
    assert np.array_equal(found[found.confidence > 0.5].xyxy, scene.boxes[:1])
    for empty in (Scene(), scene.above(1)):
        assert len(empty.to_supervision()) == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boxes": np.zeros((4, 5)), "classes": [0] * 5}, r"boxes have shape \(4, 5\)"),
        ({"boxes": [1, 2, 3], "classes": [0]}, r"boxes have shape \(3,\)"),
        ({"label": np.zeros((2, 2, 3))}, r"label has shape \(2, 2, 3\)"),
        ({"label": np.full((2, 2), np.nan)}, "label is of float64; it takes integers"),
        ({"boxes": [[1, 2, 3, 4], [1]], "classes": [0, 1]}, r"boxes are \[\[1, 2, 3, 4\], \[1\]\]"),
        ({"boxes": [[1, 2, 3, 4]], "classes": None}, "classes are None"),
        ({"boxes": [[1, 2, 3, 4]], "classes": [0], "scores": ["x"]}, r"scores are \['x'\]"),
        ({"size": 5}, r"size is 5; it takes \(height, width\)"),
    ],
)
def test_arrays_of_other_shapes_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Scene(**fields)


def test_numbers_that_are_not_finite_are_none_in_json():
    scene = Scene(boxes=[[1, 2, float("nan"), 4]], classes=[1], scores=[float("inf")])
    (entry,) = json.loads(json.dumps(scene.to_dict(), allow_nan=False))["boxes"]
    assert entry["box"] == [1, 2, None, 4] and entry["score"] is None
    with pytest.raises(InputError, match="min_score is 'x'"):
        scene.above("x")


@pytest.mark.parametrize("factor", [0, 1.5, float("nan"), float("inf"), None, "2"])
def test_a_factor_is_a_whole_number(scene, factor):
    with pytest.raises(InputError, match=f"factor is {factor}"):
        scene.enlarged(factor)


def test_classes_that_the_model_does_not_have_are_numbers(scene):
    other = replace(scene, label=[[0, 255, 255]], size=None, classes=[-1, 99])
    found = other.to_dict()
    assert [entry["name"] for entry in found["label"]] == ["cat", "255"]
    assert [entry["name"] for entry in found["boxes"]] == ["-1", "99"]


def test_a_record_without_its_label_is_named():
    with pytest.raises(InputError, match=r"x\.png has no label"):
        Scene.from_record({"file_name": "x.png"}, ("sem_seg",))
