"""The benchmark's table, JSON and chart at a tiny size."""

import json

import cv2
import numpy as np
import pytest

from tests.helpers import run_tool
from topformer_d2.analysis.benchmark import Entry, Result, draw_latency, run_benchmark
from topformer_d2.analysis.peers import PEERS, build_peer

pytest.importorskip("onnxruntime", reason="the export extra is not installed")


def test_table_json_and_chart(tmp_path):
    result = run_tool(
        *("benchmark.py", "--config-file", "configs/seg_topformer_t.yaml", "--size", "64", "96"),
        *("--repetitions", "2", "--backends", "torch", "onnxruntime", "--compare"),
        *("--json", tmp_path / "t.json", "--chart", tmp_path / "t.png"),
    )
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "t.json").read_text())
    names = [(r["model"], r["backend"]) for r in records]
    own = ["DefaultPredictor", "torch", "onnxruntime"]
    assert names[:3] == [("seg_topformer_t", backend) for backend in own]
    assert names[3:] == [(p, backend) for p in PEERS for backend in own[1:]]
    assert all(r["threads"] == 1 and r["size"] == [64, 96] for r in records)
    assert records[0]["speedup"] == 1 and records[1]["network_ms"] > 0
    # The spec's 0.58 GMACs at 512x512, in proportion.
    assert records[1]["gmacs"] == pytest.approx(0.58 * 64 * 96 / 512**2, rel=0.05)
    assert result.stdout.count("| seg_topformer_t ") == 3
    assert cv2.imread(str(tmp_path / "t.png")).shape[2] == 3


def test_medians_and_ratios_are_of_the_calls(monkeypatch):
    times = np.array([[8.0, 2, 1], [9, 3, 2], [40, 4, 3]])  # two whole ways, then a network
    monkeypatch.setattr("topformer_d2.analysis.benchmark.time_alternately", lambda *_: times)
    entries = [Entry("a", "x", 1.0, None, print), Entry("b", "y", 2.0, print, print)]
    first, second = run_benchmark(entries, 3)
    assert first == Result("a", "x", 1.0, None, 9.0, 1.0)
    assert second == Result("b", "y", 2.0, 2.0, 3.0, 4.0)
    assert draw_latency([first, second], "title").std() > 0


@pytest.mark.parametrize("name", PEERS)
def test_peers_give_logits_below_the_images_size(name):
    if name == "SegFormer-B0":
        pytest.importorskip("transformers", reason="the baselines extra is not installed")
    import torch

    logits = build_peer(name, 19)(torch.zeros(1, 3, 64, 96))
    assert logits.shape[:2] == (1, 19)
    assert logits.shape[2] in (8, 16, 4) and logits.shape[3] * 2 == logits.shape[2] * 3


def test_what_cannot_be_compared_is_refused():
    result = run_tool(
        *("benchmark.py", "--config-file", "configs/det_retinanet_lite_topformer_t.yaml"),
        "--compare",
    )
    assert result.returncode == 1 and "--compare is for segmentation" in result.stderr
