"""An ONNX file's time by layer, and the network as the paper lists it."""

import onnx
import pytest
import torch

from tests.helpers import exported, run_script
from topformer_d2.errors import InputError
from topformer_d2.export.network import ExportNetwork, describe
from topformer_d2.export.profile import _WARM_UP, _node_times, format_profile, profile_onnx
from topformer_d2.export.reference import as_listed
from topformer_d2.inference.formats.onnx import write_onnx
from topformer_d2.inference.model_info import ModelInfo


@pytest.fixture
def file(trained, tmp_path):
    cfg, _, weights = trained("seg_topformer_t_synthetic")
    path = str(tmp_path / "m.onnx")
    return exported(cfg, weights, path)


def test_each_convolution_has_a_time_and_a_rate(file):
    nodes, shape = profile_onnx(file, (64, 128), repetitions=3)
    assert shape == (1, 3, 64, 128)
    convolutions = [node for node in nodes if node.operator == "Conv"]
    count = sum(node.op_type == "Conv" for node in onnx.load(file).graph.node)
    assert len(convolutions) == count == 66
    times = [node.milliseconds for node in nodes]
    assert times == sorted(times, reverse=True) and times[-1] >= 0
    stem = next(node for node in convolutions if "pyramid/stem" in node.name)
    assert stem.shape == (1, 16, 32, 64)
    multiply_adds = 27 * 16 * 32 * 64
    assert stem.gflops == pytest.approx(2e-6 * multiply_adds / stem.milliseconds)
    by_operator, layers = format_profile(nodes, 5).split("\n\n")
    assert "| Conv" in by_operator and by_operator.splitlines()[-1].startswith("| all")
    assert len(layers.splitlines()) == 2 + 5


def test_tool(file):
    args = ("--size", "64", "64", "--repetitions", "2", "--layers", "3")
    printed = run_script("benchmarks/profile_export.py", file, *args).stdout
    assert "GFLOP/s" in printed
    assert printed.startswith("input 1x3x64x64, threads: 1, 2 repetitions; ")


def test_what_cannot_be_profiled(trained, tmp_path):
    cfg, _, weights = trained("seg_topformer_t_synthetic")
    path = tmp_path / "m.onnx"
    with pytest.raises(InputError, match=r"m\.onnx does not exist"):
        profile_onnx(str(path), (64, 64))
    exported(cfg, weights, path, with_preprocessing=True)
    with pytest.raises(InputError, match=r"m\.onnx .* without `with_preprocessing`"):
        profile_onnx(str(path), (64, 64))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"m\.onnx is not a whole ONNX file"):
        profile_onnx(str(path), (64, 64))


def test_nodes_are_told_apart_and_may_run_seldom():
    def event(name, index, milliseconds):
        shapes = {key: [{"float": [1, 2]}] for key in ("input_type_shape", "output_type_shape")}
        args = {"node_index": str(index), "op_name": "Add", **shapes}
        return {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "dur": milliseconds * 1e3,
            "args": args,
        }

    events = [event("", index, 1 + index) for index in (0, 1) for _ in range(_WARM_UP + 2)]
    nodes = _node_times([*events, event("seldom", 2, 9)])
    assert [node.milliseconds for node in nodes] == [1, 2]


@pytest.mark.parametrize("letter", "tsb")
def test_as_listed_has_the_same_numbers(trained, letter):
    cfg, model, _ = trained(f"seg_topformer_{letter}")
    listed = as_listed(model)
    info = describe(model, ModelInfo.from_config(cfg), size=(96, 128))
    x = torch.randn(1, 3, 96, 128)
    (expected,), (given,) = (ExportNetwork(m, info)(x) for m in (model, listed))
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_as_listed_has_other_nodes(trained, tmp_path):
    cfg, model, _ = trained("seg_topformer_t")
    info = describe(model, ModelInfo.from_config(cfg), size=(64, 64))
    counts = []
    for number, network in enumerate((model, as_listed(model))):
        path = tmp_path / f"{number}.onnx"
        write_onnx(ExportNetwork(network, info), info, path)
        nodes = [node.op_type for node in onnx.load(path).graph.node]
        counts.append((nodes.count("HardSigmoid"), nodes.count("Clip")))
    assert counts == [(3, 8), (0, 11)]
