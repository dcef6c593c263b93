"""What an exported file says of itself, there and back."""

import json
import math
import random

import numpy as np
import pytest

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference.explanation import explain, metadata_json
from topformer_d2.inference.export_info import METADATA_KEY, BoxDecoding, ExportInfo
from topformer_d2.inference.model_info import ModelInfo
from topformer_d2.inference.output_names import BOX_DELTAS, BOXES, CLASS_LOGITS

DECODING = BoxDecoding(
    strides=(8, 16),
    cell_anchors=(((-4.0, -4.0, 4.0, 4.0),), ((-8.0, -8.0, 8.0, 8.0),)),
    offset=0.5,
    box_weights=(1.0, 1.0, 1.0, 1.0),
    scale_clamp=4.135,
    score_threshold=0.05,
    topk=1000,
    nms_threshold=0.5,
    max_detections=100,
)


def make_info(**kwargs):
    model = ModelInfo.from_config(get_config("multitask_lite_topformer_t_synthetic"))
    keys = {"outputs": ("logits", *BOXES), "versions": {"torch": "2.6"}, "decoding": DECODING}
    return ExportInfo(model, **(keys | kwargs))


RAW = tuple(start + level for start in (CLASS_LOGITS, BOX_DELTAS) for level in ("p3", "p4"))


@pytest.mark.parametrize(
    "kwargs, input_name",
    [
        ({}, "images"),
        ({"size": (512, 640), "with_preprocessing": True}, "image"),
        ({"batch": None, "outputs": ("labels", *RAW)}, "images"),
        ({"format": 1, "decoding": None}, "images"),
    ],
)
def test_back_from_json(kwargs, input_name):
    info = make_info(**kwargs)
    assert ExportInfo.from_json(info.to_json(), "x") == info
    assert ExportInfo.from_onnx_metadata({METADATA_KEY: metadata_json(info)}, "x") == info
    assert info.input_name == input_name


def test_it_explains_itself():
    found = json.loads(metadata_json(make_info(size=(480, 640))))["explanation"]
    assert "clipped" in found["outputs"]["boxes"] and "float32" in found["input"]
    steps = " ".join(found["preprocessing"])
    assert all(word in steps for word in ("480", "640", "mean [123.675", "red, green, blue"))
    assert all(word in found["boxes"] for word in ("[8, 16]", "0.05", "IoU above 0.5", "1000"))
    old = explain(make_info(format=1))
    assert "not clipped" in old["outputs"]["boxes"]


def test_openvino_keeps_it(tmp_path):
    openvino = pytest.importorskip("openvino")
    x = openvino.opset13.parameter([1, 3], np.float32)
    info = make_info()
    model = openvino.Model([openvino.opset13.relu(x)], [x])
    model.set_rt_info(info.to_json(), METADATA_KEY)
    openvino.save_model(model, tmp_path / "model.xml")
    read = openvino.Core().read_model(tmp_path / "model.xml")
    assert ExportInfo.from_openvino(read, "model.xml") == info


def changed(key, value, **kwargs) -> str:
    """The JSON with another value under a key such as "model.tasks"."""
    values = json.loads(make_info(**kwargs).to_json())
    *outer, last = key.split(".")
    found = values
    for name in outer:
        found = found[name]
    found[last] = value
    return json.dumps(values)


WRONG = [
    ("format", 3),
    ("format", "2"),
    ("tomorrow", 1),
    ("model.tomorrow", 1),
    ("model", 1),
    ("model.tasks", []),
    ("model.tasks", ["sem_seg", "sem_seg"]),
    ("model.tasks", ["sem_seg"]),
    ("model.tasks", ["depth", "instances"]),
    ("model.pixels.names", []),
    ("model.pixels.names", ["a"]),
    ("model.pixels.names", [1] * 6),
    ("model.pixels.colors", [[0, 0, 256]] * 6),
    ("model.pixels.colors", [[0, 0, 0.5]] * 6),
    ("model.objects.ids", [1]),
    ("model.objects.dataset", None),
    ("model.image_format", "GRAY"),
    ("model.pixel_mean", [1, 2]),
    ("model.pixel_mean", [1, 2, math.nan]),
    ("model.pixel_std", [1, 0, 1]),
    ("model.pixel_std", [1, 1e999, 1]),
    ("model.short_side", -1),
    ("model.long_side", 0),
    ("model.size_divisor", 0),
    ("model.size_divisor", True),
    ("outputs", ["logits"]),
    ("outputs", ["logits", "boxes", "scores", "masks"]),
    ("outputs", ["boxes", "scores", "classes", "logits"]),
    ("outputs", "logits"),
    ("size", [0, 1]),
    ("size", [1, 10**400]),
    ("size", [30000, 30000]),
    ("size", 512),
    ("batch", None),
    ("batch", 0),
    ("with_preprocessing", 1),
    ("decoding", None),
    ("decoding", []),
    ("decoding.strides", [8]),
    ("decoding.cell_anchors", [[[0, 0, 1]], [[0, 0, 1]]]),
    ("decoding.score_threshold", 2),
    ("decoding.max_detections", -1),
    ("versions", {"torch": 2}),
]


@pytest.mark.parametrize("key, value", WRONG)
def test_a_wrong_value_is_named(key, value):
    last = key.rpartition(".")[2]
    with pytest.raises(InputError, match=rf"m\.onnx .*{last}.*export it again"):
        ExportInfo.from_json(changed(key, value), "m.onnx")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 1}', "[" * 100_000, "\ud800", "1e5"])
def test_other_text_is_refused(text):
    with pytest.raises(InputError, match=r"m\.onnx does not describe .* export it again"):
        ExportInfo.from_json(text, "m.onnx")


ODD = [None, True, -1, 0, 1e308, 10**30, math.nan, "", "x" * 20_000, [], [[]], {}, [None], "\ud800"]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_random_changes_are_refused_or_read_as_they_are(seed):
    rng = random.Random(seed)
    for _ in range(100):
        values = json.loads(metadata_json(make_info()))
        found, key = values, "model"
        while True:  # down to some place
            key = rng.choice(list(found)) if isinstance(found, dict) else rng.randrange(len(found))
            if not isinstance(found[key], dict | list) or not found[key] or rng.random() < 0.3:
                break
            found = found[key]
        if rng.random() < 0.2:
            del found[key]
        else:
            found[key] = rng.choice(ODD)
        text = json.dumps(values)
        try:
            info = ExportInfo.from_json(text, "m.onnx")
        except InputError as e:
            assert "m.onnx" in str(e) and len(str(e)) < 2000
            continue
        # What is read is what stands there; the sentences for people are not read.
        values.pop("explanation", None)
        assert json.loads(info.to_json()) == values


def test_a_file_without_it_is_named():
    with pytest.raises(InputError, match=r"other\.onnx does not describe its model"):
        ExportInfo.from_onnx_metadata({"author": "someone"}, "other.onnx")
