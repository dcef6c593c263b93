"""What an exported file says of itself, there and back."""

import numpy as np
import pytest

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference.export_info import BOXES, METADATA_KEY, BoxDecoding, ExportInfo
from topformer_d2.inference.model_info import ModelInfo

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
    return ExportInfo(model, outputs=("logits", *BOXES), versions={"torch": "2.6"}, **kwargs)


@pytest.mark.parametrize(
    "kwargs, input_name",
    [
        ({}, "images"),
        ({"size": (512, 640), "with_preprocessing": True}, "image"),
        ({"batch": None, "decoding": DECODING}, "images"),
    ],
)
def test_back_from_json(kwargs, input_name):
    info = make_info(**kwargs)
    assert ExportInfo.from_json(info.to_json(), "x") == info
    assert ExportInfo.from_onnx_metadata({METADATA_KEY: info.to_json()}, "x") == info
    assert info.input_name == input_name


def test_openvino_keeps_it(tmp_path):
    openvino = pytest.importorskip("openvino")
    x = openvino.opset13.parameter([1, 3], np.float32)
    info = make_info(decoding=DECODING)
    model = openvino.Model([openvino.opset13.relu(x)], [x])
    model.set_rt_info(info.to_json(), METADATA_KEY)
    openvino.save_model(model, tmp_path / "model.xml")
    read = openvino.Core().read_model(tmp_path / "model.xml")
    assert ExportInfo.from_openvino(read, "model.xml") == info


NEWER = make_info().to_json()[:-1] + ', "tomorrow": 1}'


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 1}', NEWER])
def test_other_text_is_refused(text):
    with pytest.raises(InputError, match=r"m\.onnx does not describe .* export it again"):
        ExportInfo.from_json(text, "m.onnx")


def test_a_file_without_it_is_named():
    with pytest.raises(InputError, match=r"other\.onnx does not describe its model"):
        ExportInfo.from_onnx_metadata({"author": "someone"}, "other.onnx")
