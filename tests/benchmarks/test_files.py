"""Exported files timed beside each other."""

import re

from tests.helpers import exported, photo, run_script, save_untrained


def test_benchmark_files(tiny_config, tmp_path):
    cfg = tiny_config()
    weights = save_untrained(cfg, tmp_path / "w.pth")
    files = [exported(cfg, weights, tmp_path / name) for name in ("m.onnx", "other.onnx")]
    words = ["--image", photo(tmp_path / "a.png"), "--repetitions", "2"]
    result = run_script("benchmarks/benchmark_files.py", *files, *words)
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^\| (\S+\.onnx) +\| +[\d.]+ \| +([\d.]+) \|", result.stdout, re.M)
    assert [name for name, _ in rows] == files and rows[0][1] == "1.00"
    refused = run_script("benchmarks/benchmark_files.py", "camvid_t", *words)
    assert refused.returncode == 1 and "camvid_t is not an exported file" in refused.stderr
