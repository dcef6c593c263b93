"""Instructions of the label map on 64-bit ARM."""

import re
import shutil

import pytest

from tests.helpers import run_script


@pytest.mark.slow
def test_the_label_map_takes_fewer_instructions_than_the_plain_way():
    for program in ("aarch64-linux-gnu-gcc", "qemu-aarch64", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    result = run_script("benchmarks/count_arm_instructions.py")
    assert result.returncode == 0, result.stderr
    lines = [re.split(r" *\| *", line) for line in result.stdout.splitlines()[2:]]
    rows = [[float(line[4]), float(line[5]), float(line[7].rstrip("%"))] for line in lines]
    assert len(rows) == 3
    assert all(0 < fast < plain and same > 99.99 for fast, plain, same in rows)
