"""The loader's benchmark prints its tables, and the loader is faster than Detectron2's."""

import re

import pytest

from tests.helpers import run_script


@pytest.mark.slow
def test_tables_of_stages_and_workers():
    few = ("--images", 4, "--repetitions", 2, "--batches", 2, "--rounds", 2)
    result = run_script("benchmarks/benchmark_loader.py", *few)
    assert result.returncode == 0, result.stderr
    for stage in ("read, decode", "resize", "crop", "flip", "colour", "to tensors", "all"):
        assert re.search(rf"^{stage} +[\d.]+ +[\d.]+ +[\d.]+$", result.stdout, re.M)
    assert re.search(r"^ +1 +[\d.]+ +1\.00 +[\d.]+ +[\d.]+$", result.stdout, re.M)
    # 2.5 on a quiet machine.
    assert float(re.search(r"^images a second .* ([\d.]+)$", result.stdout, re.M)[1]) > 1.3
