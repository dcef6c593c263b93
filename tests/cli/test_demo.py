"""The README's first command, less the set-up."""

import re

import cv2
import pytest

from tests.helpers import start_topformer


@pytest.mark.slow
def test_demo_trains_evaluates_and_draws(tmp_path):
    result = start_topformer("demo", "--output", tmp_path, timeout=900)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    miou, ap50 = re.search(r"^mIoU ([\d.]+) and AP50 ([\d.]+) on", result.stdout, re.M).groups()
    assert float(miou) > 80 and float(ap50) > 80
    assert re.search(r"ring +[\d.]+", result.stdout)
    path = re.search(r"side by side: (.+)$", result.stdout, re.M)[1]
    assert cv2.imread(path).shape[1] > 3 * 160
