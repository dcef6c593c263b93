"""Exported files that are damaged, old, somebody else's or made to do harm."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor
from topformer_d2.inference.export_info import METADATA_KEY, ExportInfo
from topformer_d2.inference.formats.onnx import OnnxRuntimeSession
from topformer_d2.inference.model_info import ModelInfo

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
pytest.importorskip("onnxruntime", reason="the export extra is not installed")
K = 6


@pytest.fixture(scope="module")
def info():
    model = ModelInfo.from_config(get_config("seg_topformer_t_synthetic"))
    return ExportInfo(model, outputs=("logits",), batch=None)


def make_model(channels=K, name="images", inside=None):
    """One convolution from images (N, 3, H, W) to logits (N, channels, H, W)."""
    weights = np.random.default_rng(0).standard_normal((channels, 3, 3, 3))
    weights = weights.astype(np.float32)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    sides = ["batch", 3, "height", "width"]
    nodes = [helper.make_node("Conv", [name, "w"], ["logits"], pads=[1] * 4)]
    graph = helper.make_graph(
        nodes + (inside or []),
        "g",
        [helper.make_tensor_value_info(name, kind, sides)],
        [helper.make_tensor_value_info("logits", kind, ["batch", channels, "height", "width"])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def path(info, tmp_path):
    """A small file as `topformer export` writes it."""
    from topformer_d2.inference.formats.onnx import save_described

    save_described(make_model(), info.to_json(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def describe(model, path: Path, text: str) -> str:
    """Write a model with this description, and no checksum."""
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, path)
    return str(path)


def old(info) -> str:
    """As version 0.1.0 described it."""
    values = json.loads(info.to_json())
    values.pop("format")
    return json.dumps(values)


IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_a_whole_file_and_an_old_one_are_read(path, info, tmp_path):
    found = Predictor(path)(IMAGE)
    assert found.label.shape == (40, 60)
    without = describe(make_model(), tmp_path / "old.onnx", old(info))
    assert Predictor(without).backend._session.export.format == 1
    assert (Predictor(without)(IMAGE).label == found.label).all()


@pytest.mark.parametrize("seed", range(40))
def test_a_changed_byte_is_found(path, seed):
    content = bytearray(path.read_bytes())
    rng = random.Random(seed)
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx .*(copy|export) it again"):
        OnnxRuntimeSession(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_found(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"m\.onnx is not a whole ONNX file"):
        OnnxRuntimeSession(path)


def test_other_files_are_refused(tmp_path, info):
    onnx.save(make_model(), tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx does not describe its model"):
        Predictor(tmp_path / "other.onnx")
    property_of_number = b"\x72\x0b\x08" + b"\xff" * 8 + b"\x7f" + b"\x3a\x00"
    for name, content in (
        ("noise", random.Random(0).randbytes(5000)),
        ("text", b"hello " * 100),
        ("none", b""),
        ("number", property_of_number),
    ):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.onnx is not a whole ONNX file"):
            Predictor(tmp_path / f"{name}.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match=r"pipe\.onnx is a pipe"):
        Predictor(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match=r"nowhere\.onnx does not exist"):
        Predictor(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("where", ["initializer", "attribute", "branch"])
def test_no_weights_are_taken_from_other_files(tmp_path, info, where):
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(K * 27, np.float32).tobytes())
    model = make_model()
    tensor = onnx.numpy_helper.from_array(np.zeros((K, 3, 3, 3), np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "../secret")
    tensor.ClearField("raw_data")
    if where == "initializer":
        model.graph.initializer[0].CopyFrom(tensor)
    else:
        constant = onnx.NodeProto(op_type="Constant", output=["unused"])
        attribute = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
        attribute.t.CopyFrom(tensor)
        if where == "branch":
            branch = onnx.GraphProto(name="b", node=[constant])
            constant = onnx.NodeProto(op_type="If", input=["c"], output=["o"])
            constant.attribute.add(name="then_branch", type=5).g.CopyFrom(branch)
        model.graph.node.append(constant)
    onnx.helper.set_model_props(model, {METADATA_KEY: old(info)})
    path = tmp_path / "a" / "m.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="takes weights from another file"):
        OnnxRuntimeSession(path)


def test_graphs_nested_too_deep_are_refused(tmp_path):
    def message(number: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
        return bytes([number << 3 | 2]) + length + content

    graph = b""
    for _ in range(5000):
        graph = message(1, message(5, message(6, graph)))
    (tmp_path / "m.onnx").write_bytes(message(7, graph))
    with pytest.raises(InputError, match="nested too deep"):
        OnnxRuntimeSession(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "model, message",
    [
        ({"channels": 5}, r"gives logits as float \(any, 5, any, any\) instead of .*6"),
        ({"name": "x"}, r"takes \['x'\] instead of \['images'\]"),
    ],
)
def test_a_description_of_another_graph_is_refused(tmp_path, info, model, message):
    path = describe(make_model(**model), tmp_path / "m.onnx", old(info))
    with pytest.raises(InputError, match=rf"m\.onnx is not the network that it .*{message}"):
        OnnxRuntimeSession(path)


@pytest.mark.parametrize("changes", [{"size": (64, 64), "batch": 1}, {"outputs": ("labels",)}])
def test_what_only_the_answer_shows_is_refused_then(tmp_path, info, changes):
    """The graph leaves its sizes free and the description does not, or says labels."""
    from dataclasses import replace

    described = replace(info, **changes)
    path = describe(make_model(), tmp_path / "m.onnx", old(described))
    if "outputs" in changes:
        with pytest.raises(InputError, match="gives"):
            OnnxRuntimeSession(path)
    else:
        assert Predictor(path)(IMAGE).label.shape == (40, 60)


def test_an_operator_that_nobody_knows_is_refused(tmp_path, info):
    node = onnx.helper.make_node("Evil", ["logits"], ["o"], domain="custom")
    model = make_model(inside=[node])
    model.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    path = describe(model, tmp_path / "m.onnx", old(info))
    with pytest.raises(InputError, match=r"m\.onnx is not an ONNX file that ONNX Runtime can run"):
        OnnxRuntimeSession(path)


def test_an_input_that_does_not_fit_is_told(path):
    session = OnnxRuntimeSession(path)
    for x in (np.zeros((1, 4, 8, 8), np.float32), np.zeros((3, 8, 8), np.float32)):
        with pytest.raises(InputError, match=r"m\.onnx cannot be run on float32 of shape \("):
            session.run(x)


def test_openvino_finds_the_same(path, tmp_path, info):
    openvino = pytest.importorskip("openvino")
    from topformer_d2.inference.checksum import CHECKSUM_KEY, PLACEHOLDER, seal

    for name, factor in (("a", 1.0), ("b", 2.0)):
        model = make_model()
        weights = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(factor)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
        onnx.save(model, tmp_path / "traced.onnx")
        converted = openvino.convert_model(tmp_path / "traced.onnx")
        converted.set_rt_info(info.to_json(), METADATA_KEY)
        converted.set_rt_info(PLACEHOLDER, CHECKSUM_KEY)
        openvino.save_model(converted, tmp_path / f"{name}.xml", compress_to_fp16=False)
        seal(tmp_path / f"{name}.xml", tmp_path / f"{name}.bin")
    labels = Predictor(path, backend="openvino")(IMAGE).label
    assert (Predictor(tmp_path / "a.xml")(IMAGE).label == labels).mean() > 0.99
    shutil.copy(tmp_path / "b.bin", tmp_path / "a.bin")
    with pytest.raises(InputError, match=r"a\.xml or a\.bin was damaged .*both files"):
        Predictor(tmp_path / "a.xml")
    text = (tmp_path / "b.xml").read_text()
    (tmp_path / "b.xml").write_text(text.replace('pads_begin="1', 'pads_begin="2'))
    with pytest.raises(InputError, match=r"b\.xml or b\.bin was damaged"):
        Predictor(tmp_path / "b.xml")
    (tmp_path / "b.xml").write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match=r"b\.xml .*copy both files"):
        Predictor(tmp_path / "b.xml")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx was damaged"):
        Predictor(path, backend="openvino")
