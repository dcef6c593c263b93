"""The benchmark's table, JSON and chart at a tiny size."""

import json
import os
import platform
import sys
from argparse import Namespace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import save_untrained, topformer
from topformer_d2 import Predictor, get_config
from topformer_d2.analysis import benchmark, timed_models
from topformer_d2.analysis.benchmark import (
    Entry,
    describe_machine,
    draw_latency,
    format_results,
    run_benchmark,
)
from topformer_d2.analysis.gpu import format_gpu_times, time_on_gpu
from topformer_d2.analysis.peers import PEERS, build_peer, prepare_peer
from topformer_d2.analysis.timed_models import (
    model_in_use,
    own_entries,
    peer_entries,
    plain_entry,
    untrained_weights,
)
from topformer_d2.cli import benchmark as verb
from topformer_d2.config import load_config

pytest.importorskip("onnxruntime", reason="the export extra is not installed")
DETECTOR = "configs/det_retinanet_lite_topformer_t.yaml"


@pytest.mark.slow
def test_table_json_and_chart(tmp_path):
    result = topformer(
        *("benchmark", "--config-file", "configs/seg_topformer_t.yaml", "--size", "64", "96"),
        *("--repetitions", "2", "--backends", "torch", "onnxruntime", "--compare"),
        "--reference",
        *("--json", tmp_path / "t.json", "--chart", tmp_path / "t.png"),
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    record = json.loads((tmp_path / "t.json").read_text())
    results = record["results"]
    names = [(r["model"], r["backend"]) for r in results]
    own = ["DefaultPredictor", "torch", "onnxruntime", "onnxruntime, as listed"]
    own += ["onnxruntime, plain argmax"]
    assert names[:5] == [("seg_topformer_t", backend) for backend in own]
    peers = [*own[1:3], "onnxruntime, argmax in the graph"]
    assert names[5:] == [(p, backend) for p in PEERS for backend in peers]
    assert record["threads"] == 1 and record["size"] == [64, 96] and record["repetitions"] == 2
    assert "ONNX Runtime" in record["machine"]
    assert results[0]["speedup"] == 1 and results[1]["network_ms"] > 0
    assert results[3]["network_ratio"] == 1 and results[2]["network_ratio"] > 0
    assert results[5]["network_ratio"] is None and results[5]["network_ms"] > 0
    for r in results:
        assert r["whole_quartiles"][0] <= r["whole_ms"] <= r["whole_quartiles"][1]
    # The spec's 0.58 GMACs at 512x512, in proportion.
    assert results[1]["gmacs"] == pytest.approx(0.58 * 64 * 96 / 512**2, rel=0.05)
    assert result.stdout.count("| seg_topformer_t ") == 5
    assert cv2.imread(str(tmp_path / "t.png")).shape[2] == 3


def test_medians_and_ratios_are_of_the_calls(monkeypatch):
    # Two whole ways, then two networks.
    times = np.array([[8.0, 2, 1, 4], [9, 3, 2, 4], [40, 4, 3, 4]])
    monkeypatch.setattr(benchmark, "time_alternately", lambda *_: times)
    entries = [
        Entry("a", "x", 1.0, print, print),
        Entry("a", "y", 1.0, print, print, is_reference=True),
    ]
    first, second = run_benchmark(entries, 3)
    assert (first.network_ms, first.network_quartiles, first.network_ratio) == (2, (1.5, 2.5), 0.5)
    assert (first.whole_ms, first.whole_quartiles, first.speedup) == (9, (8.5, 24.5), 1)
    assert (second.network_ms, second.network_ratio, second.speedup) == (4, 1, 4)
    assert format_results([first, second]).splitlines()[2].split("|")[5].strip() == "0.50"
    entries = [Entry("a", "x", None, None, print), Entry("b", "y", 2.0, print, print)]
    monkeypatch.setattr(benchmark, "time_alternately", lambda *_: times[:, :3])
    results = run_benchmark(entries, 3)
    assert results[0].network_ms is None and results[1].network_ratio is None
    assert "reference" not in format_results(results)


def test_chart_has_each_network_and_names_it_beside_the_frame(monkeypatch):
    monkeypatch.setattr(benchmark, "render", lambda figure: figure)
    times = np.array([[1.0, 1, 1, 5, 0.2, 7]])
    monkeypatch.setattr(benchmark, "time_alternately", lambda *_: times)
    entries = [
        Entry("slow", "x", 3.0, print, print),
        Entry("slow", "y", 3.0, print, print),
        Entry("quick", "x", 0.3, None, print),
    ]
    entries[2].network = print
    figure = draw_latency(run_benchmark(entries, 1), "title")
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["slow"] == [[3, 5], [3, 0.2]] and lines["quick"] == [[0.3, 7]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["x", "y"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["quick", "slow"]
    figure.draw_without_rendering()
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    assert {"0.2", "0.5", "1", "2", "5", "10"} <= set(ticks)
    # A single point has a number on each axis.
    (axes,) = draw_latency(run_benchmark([entries[2]] * 3, 1)[:1], "").axes
    for axis in (axes.xaxis, axes.yaxis):
        lower, upper = axis.get_view_interval()
        assert any(lower <= tick <= upper for tick in axis.get_majorticklocs())


def test_machine_has_cores_and_versions():
    described = describe_machine()
    assert f"{os.cpu_count()} cores" in described and platform.system() in described
    assert f"PyTorch {torch.__version__}" in described


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seg_topformer_t", "det_retinanet_lite_topformer_t"])
def test_forms_of_a_gpu_run_on_a_cpu(tmp_path, name):
    cfg = get_config(name)
    model = model_in_use(cfg, save_untrained(cfg, tmp_path / "w.pth"), "cpu")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    times = {n: time_on_gpu(model, (64, 64), n, 1, device="cpu") for n in (1, 2)}
    forms = [
        f"{p}{layout}"
        for p in ("float32 (TF32 allowed)", "bfloat16")
        for layout in ("", ", channels last")
    ]
    assert list(times[2]) == forms + (["label maps"] if name.startswith("seg") else [])
    assert min(times[1].values()) > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert "batch 2, ms" in format_gpu_times(times)


def test_the_gpus_times_by_model_batch_and_form(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    configs = {name: get_config("seg_topformer_t_synthetic") for name in "ab"}
    weights = dict.fromkeys(configs, save_untrained(configs["a"], tmp_path / "w.pth"))
    args = Namespace(size=[32, 64], repetitions=1)
    rows = verb.report_gpu(args, configs, weights, device="cpu")
    assert [(row["model"], row["batch"]) for row in rows[::5]] == [
        *(("a", 1), ("a", 32), ("b", 1), ("b", 32))
    ]
    assert {row["device"] for row in rows} == {"a GPU"} and rows[4]["form"] == "label maps"
    assert min(row["ms"] for row in rows) > 0
    assert "b, a GPU\n| form" in capsys.readouterr().out


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_peers_give_logits_below_the_images_size(name):
    if name == "SegFormer-B0":
        pytest.importorskip("transformers", reason="the baselines extra is not installed")
    model = build_peer(name, 19)
    x = torch.rand(1, 3, 64, 96)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    logits = model(x)
    assert logits.shape[:2] == (1, 19)
    assert logits.shape[2] in (8, 16, 4) and logits.shape[3] * 2 == logits.shape[2] * 3
    prepared = prepare_peer(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in prepared.modules())
    torch.testing.assert_close(prepared(x), logits, atol=1e-4, rtol=1e-4)


def test_all_ways_to_a_label_map_agree(tmp_path, monkeypatch):
    """The plain argmax of our file and the Predictor; a peer's argmax in its graph and outside."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cfg, path = get_config("seg_topformer_t"), str(tmp_path / "w.pth")
    untrained_weights(cfg, image, path)
    common = {"num_threads": 1, "folder": tmp_path}
    plain = plain_entry("t", cfg, path, image, **common).whole()
    cfg.INPUT.MIN_SIZE_TEST = 0
    label = Predictor(cfg, path)(image).label
    assert len(np.unique(label)) > 1
    assert (plain.numpy() == label).mean() > 0.99
    monkeypatch.setattr(timed_models, "PEERS", PEERS[:1])
    _, outside, in_graph = peer_entries(image, num_classes=19, **common)
    assert (outside.whole() == in_graph.whole()).float().mean() > 0.99


@pytest.mark.slow
def test_an_untrained_detector_finds_something(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cfg, path = load_config(DETECTOR), str(tmp_path / "w.pth")
    untrained_weights(cfg, image, path)
    modules = {"openvino": "openvino", "ncnn": "pnnx", "mnn": "MNN"}
    others = [name for name, module in modules.items() if find_spec(module)]
    backends = ["torch", "onnxruntime", *others]
    common = {"backends": backends, "num_threads": 1, "folder": tmp_path}
    entries = own_entries("d", cfg, path, image, **common)[1:]
    assert [entry.backend for entry in entries] == backends
    for entry in entries:
        assert len(entry.whole().boxes) > 50
        entry.network()


def test_calls_have_the_number_of_threads(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    cfg, path = get_config("seg_topformer_t"), str(tmp_path / "w.pth")
    untrained_weights(cfg, image, path)
    before, seen = torch.get_num_threads(), []
    entries = own_entries("s", cfg, path, image, backends=["torch"], num_threads=3, folder=tmp_path)
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda *_: seen.append(torch.get_num_threads())
    )
    try:
        for entry in entries:
            entry.whole()
        entries[1].network()
    finally:
        handle.remove()
    assert set(seen) == {3} and torch.get_num_threads() == before


SEGMENTER = "configs/seg_topformer_t.yaml"
BASELINE = "configs/baseline_lraspp_mobilenetv3_large.yaml"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([DETECTOR, "--compare"], "--compare is for segmentation"),
        ([SEGMENTER, "configs/seg_topformer_t_camvid.yaml", "--compare"], "one number of classes"),
        ([SEGMENTER, SEGMENTER], "two configs 'seg_topformer_t'"),
        ([SEGMENTER, "--chart", "/proc/x.png"], "--chart /proc/x.png"),
        ([SEGMENTER, "--json", "configs"], "--json configs is a folder"),
        ([BASELINE, "--reference"], "--reference is for TopFormer"),
        ([SEGMENTER, "--compare"], "needs transformers"),
        ([SEGMENTER, "--backends", "openvino"], "needs openvino"),
        ([SEGMENTER, "--backends", "torch", "--reference"], "needs onnxruntime"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(monkeypatch, args, message):
    if args[0] == BASELINE:
        pytest.importorskip("timm", reason="baselines need it")
    if "needs" in message:
        monkeypatch.setitem(sys.modules, message.split()[1], None)
    monkeypatch.setattr(
        "topformer_d2.analysis.timed_models.save_state_dict", None
    )  # no work before
    result = topformer("benchmark", "--config-file", *args)
    assert result.returncode == 1 and message in result.stderr
