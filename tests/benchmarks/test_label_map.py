"""The label map's benchmark at a tiny size."""

import pytest

from tests.helpers import run_script
from topformer_d2 import get_config
from topformer_d2.analysis.timed_models import model_in_use


@pytest.mark.slow
def test_label_map_tool(tmp_path):
    weights = str(tmp_path / "weights.pth")
    few = ("--iterations", "1", "--repetitions", "1")
    result = run_script("benchmarks/benchmark_label_map.py", *few, "--save-weights", weights)
    assert result.returncode == 0, result.stderr
    model_in_use(get_config("seg_topformer_t"), weights, "cpu")
    assert "150 classes, 512x680 from (64, 85)" in result.stdout
    assert result.stdout.count("label_map") == 2 and "MiB above the logits" in result.stdout
    refused = run_script("benchmarks/benchmark_label_map.py", "--repetitions", "0")
    assert refused.returncode == 2 and "take 1 or more" in refused.stderr
    refused = run_script("benchmarks/benchmark_label_map.py", "--save-weights", tmp_path)
    assert refused.returncode == 1 and "is a folder" in refused.stderr
