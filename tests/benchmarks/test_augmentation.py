"""The benchmark of the augmentations prints its table, and none costs more than it has images."""

import re

import pytest

from tests.helpers import run_script


@pytest.mark.slow
def test_table_of_kinds():
    result = run_script("benchmarks/benchmark_augmentation.py", "--images", 6, "--repetitions", 3)
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^(\S.*?)  +([\d.]+) +(-?[\d.]+) +([\d.]+)$", result.stdout, re.M)
    times = {kind: float(share) for kind, _, _, share in rows}
    assert len(times) == 10 and times["the recipe"] == 1
    # On a quiet machine 3.6, 1.9 and at most 1.5.
    assert times.pop("mosaic") < 6 and times.pop("copy-paste") < 3.5
    assert max(times.values()) < 2.5
