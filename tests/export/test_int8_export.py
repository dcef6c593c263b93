"""Exports in 8-bit integers: how far they may be from float32, and what is refused."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from tests.helpers import REPOSITORY
from topformer_d2 import get_config
from topformer_d2.data.image_files import list_images
from topformer_d2.data.images import read_image
from topformer_d2.errors import InputError
from topformer_d2.export import FORMATS, export_model
from topformer_d2.export import model as export_module
from topformer_d2.export.compare_int8 import compare_int8
from topformer_d2.export.quantize import quantize_model
from topformer_d2.export.quantize_executorch import separate_calls
from topformer_d2.inference import Predictor
from topformer_d2.inference.backends import resize_for
from topformer_d2.modeling import adapt
from topformer_d2.modeling.heads.retinanet import LiteRetinaNetHead

SIZE = (64, 80)


@pytest.fixture
def images():
    return os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic", "images", "train")


@pytest.fixture
def head():
    """A light detector's head of random weights, whose levels share the convolutions."""
    torch.manual_seed(0)
    levels = [ShapeSpec(channels=4, stride=8), ShapeSpec(channels=4, stride=16)]
    head = LiteRetinaNetHead(input_shape=levels, num_classes=2, num_anchors=1, num_convs=1)
    return head.eval().requires_grad_(False)


def test_each_call_of_a_convolution_has_its_own_weights(head):
    features = [torch.randn(1, 4, 8, 8), torch.randn(1, 4, 4, 4)]
    program = torch.export.export(head, (features,), strict=False)
    graph = program.run_decompositions({}).module()
    calls = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    convolutions = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    weights = {call.args[1].target for call in calls}
    assert (len(convolutions), len(calls), len(weights)) == (6, 12, 6)
    separate_calls(graph)
    names = [node.target for call in calls for node in call.args[1:3] if node is not None]
    assert len({graph.get_parameter(name).data_ptr() for name in names}) == len(names) == 16
    torch.testing.assert_close(graph(features), head(features), rtol=0, atol=0)


# The backbone as small as it can be: of a whole one the conversion takes minutes.
FEW = [
    *("MODEL.TOPFORMER.BLOCK_KERNEL_SIZES", "[3,3,3,3]"),
    *("MODEL.TOPFORMER.BLOCK_EXPANSIONS", "[1,2,2,2]"),
    *("MODEL.TOPFORMER.BLOCK_CHANNELS", "[16,16,16,16]"),
    *("MODEL.TOPFORMER.BLOCK_STRIDES", "[2,2,2,2]"),
    *("MODEL.TOPFORMER.NUM_BLOCKS", "1", "MODEL.TOPFORMER.SIM_CHANNELS", "16"),
    *("INPUT.MAX_SIZE_TEST", "80"),
]


SEGMENTER = ("seg_topformer_t_synthetic", [], 0.45)
DETECTOR = ("det_retinanet_lite_topformer_t", [*FEW, "MODEL.RETINANET.NUM_CLASSES", "5"], None)
JOINT = ("multitask_lite_topformer_t_synthetic", FEW, None)


@pytest.mark.parametrize(
    ("file_format", "name", "opts", "most"),
    [
        ("mnn", *SEGMENTER),
        pytest.param("mnn", *DETECTOR, marks=pytest.mark.slow),
        pytest.param("mnn", *JOINT, marks=pytest.mark.slow),
        # Its converter takes half a minute.
        pytest.param("executorch", *SEGMENTER, marks=pytest.mark.slow),
        pytest.param("executorch", *DETECTOR, marks=pytest.mark.slow),
        pytest.param("executorch", *JOINT, marks=pytest.mark.slow),
    ],
)
def test_it_answers_as_float32(trained, tmp_path, images, file_format, name, opts, most):
    """`most`: of the weights' size that the file has; small networks are mostly descriptions."""
    kind = FORMATS[file_format]
    if missing := [library for library in kind.libraries if find_spec(library) is None]:
        pytest.skip(f"{missing} not installed")
    cfg, model, weights = trained(name, "INPUT.MIN_SIZE_TEST", "64", *opts)
    path = str(tmp_path / f"m{kind.extension}")
    keys = {"file_format": file_format, "size": SIZE, "precision": "int8", "images": images}
    info, differences = export_model(cfg, weights, path, **keys)
    assert [found.output for found in differences] == list(info.outputs)
    assert {file.suffix for file in tmp_path.glob("m.*")} == {kind.extension, ".json"}
    if most is not None:
        assert os.path.getsize(path) < most * os.path.getsize(weights)
    backend = Predictor(path, num_threads=1).backend
    assert backend.export == info and info.precision == "int8"
    for file in list_images(images, "images")[:3]:
        x = backend.normalize([resize_for(backend, read_image(file))])
        with torch.no_grad():
            expected = adapt(model).network(torch.from_numpy(x)).tensors()
        for values, (name, found) in zip(expected, backend.infer(x).items(), strict=True):
            error = np.sqrt(np.square(found - values.numpy()).mean())
            assert 0 < error < 0.5 * values.numpy().std(), name


def values(seed):
    return np.random.default_rng(seed).normal(3, 2, (1, 4, 8, 8)).astype(np.float32)


def test_the_noise_and_the_agreement_are_those_of_all_images():
    changed = values(0)
    changed[0, :, 0, 0] = changed[0, ::-1, 0, 0]
    outputs = iter((values(0), changed))
    found = compare_int8(
        lambda x: {"logits": values(0)}, lambda x: {"logits": next(outputs)}, [np.zeros(1)] * 2
    )["logits"]
    error = changed - values(0)
    assert found.value == pytest.approx(np.abs(error).max())
    assert found.scale == pytest.approx(np.abs(values(0)).max())
    noise = np.sqrt(np.square(error).mean() / 2) / values(0).std()
    assert f"{noise:.1%}" in found.where and "2 images" in found.where
    assert f"{127 / 128:.2%} of the positions" in found.where
    assert "positions" not in (
        compare_int8(lambda x: {"b": values(0)}, lambda x: {"b": values(0)}, [0])["b"].where
    )


@pytest.mark.parametrize(
    "given",
    [
        np.full((1, 4, 8, 8), 3, np.float32),
        -values(0),
        values(1),
        np.where(values(0) > 3, np.nan, values(0)),
        values(0) + 2,
    ],
    ids=["constant", "negative", "another", "nan", "shifted"],
)
def test_another_network_is_refused(given):
    expected = {"box_deltas_p3": values(0), "class_logits_p3": values(0)}
    outputs = {**expected, "class_logits_p3": given}
    with pytest.raises(InputError, match=r"class_logits_p3.*not written"):
        compare_int8(lambda x: expected, lambda x: outputs, [0])


def test_a_constant_output_may_not_change():
    zeros = {"logits": np.zeros((1, 4, 2, 2), np.float32)}
    assert compare_int8(lambda x: zeros, lambda x: zeros, [0])["logits"].value == 0
    with pytest.raises(InputError, match="logits"):
        compare_int8(lambda x: zeros, lambda x: {"logits": zeros["logits"] + 1e-3}, [0])


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """A function from a format and a precision to what the refusal says; nothing is built."""
    monkeypatch.setattr(export_module, "build_model", None)

    def refuse(name, precision):
        path = str(tmp_path / f"m{FORMATS[name].extension}")
        keys = {"file_format": name, "precision": precision, "size": SIZE}
        with pytest.raises(InputError) as error:
            export_model(get_config("seg_topformer_t"), "w.pth", path, **keys)
        return str(error.value)

    return refuse


@pytest.mark.parametrize(
    ("name", "precision"),
    [(kind.name, precision) for kind in FORMATS.values() for precision in kind.not_written],
)
def test_a_precision_that_is_not_written_is_refused_with_the_reason(refused, name, precision):
    kind = FORMATS[name]
    assert precision not in kind.precisions
    reason = kind.not_written[precision]
    assert refused(name, precision).endswith(f": {reason}")
    assert reason in " ".join((REPOSITORY / "docs/formats.md").read_text().split())


def test_what_has_a_reason():
    assert set(FORMATS["executorch"].not_written) == {"float16"}
    assert "ncnn2int8" in FORMATS["ncnn"].not_written["int8"]


@pytest.mark.parametrize(("name", "use"), [("executorch", "calibrate"), ("mnn", "compare")])
def test_int8_needs_images(refused, name, use):
    assert "`images`" in refused(name, "int8") and use in refused(name, "int8")


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        (".pte", "export --format executorch --precision int8 --images"),
        (".mnn", "export --format mnn --precision int8 --images"),
        (".param", "ncnn2table"),
    ],
)
def test_quantize_says_what_writes_int8_instead(tmp_path, images, extension, message):
    path = str(tmp_path / f"m{extension}")
    with pytest.raises(InputError, match=message):
        quantize_model(path, images, path)
