"""`topformer data check`."""

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.helpers import REPOSITORY, datasets_below, topformer
from topformer_d2.data.synthetic import write_synthetic


def test_the_tool_reports_and_exits_with_1(tmp_path):
    write_synthetic(str(tmp_path), 3, 2, size=(64, 80))
    label = tmp_path / "synthetic/annotations_detectron2/val/00004.png"
    cv2.imwrite(str(label), np.full((64, 80), 77, np.uint8))
    with datasets_below(tmp_path):
        result = topformer(
            *("data", "check", "--config-file", "configs/seg_topformer_t_synthetic.yaml"),
            *("--json", tmp_path / "new/report.json", "DATASETS.TRAIN", "()"),
        )
    assert result.returncode == 1, result.stderr
    assert f"error: {label}: label 77 is out of range; the 6 classes are 0 to 5" in result.stdout
    report = json.loads((tmp_path / "new/report.json").read_text())
    assert report["errors"] == 1 and list(report["datasets"]) == ["synthetic_sem_seg_val"]
    assert "synthetic_sem_seg_val: 100%" in result.stderr and "Traceback" not in result.stderr


def test_warnings_alone_exit_with_0(tmp_path):
    write_synthetic(str(tmp_path), 1, 1, size=(64, 80))
    names = ["synthetic_sem_seg_val", "synthetic_boxes_val"]
    with datasets_below(tmp_path):
        result = topformer("data", "check", *names)
    assert result.returncode == 0, result.stderr
    assert "warning: synthetic_boxes_val has no object of" in result.stdout
    assert "in all: 0 errors, " in result.stdout


@pytest.mark.slow
def test_ctrl_c_ends_the_tool_with_130(tmp_path):
    write_synthetic(str(tmp_path), 1, 1, size=(1000, 1000))
    for folder in ("images/train", "annotations_detectron2/train"):
        for i in range(1, 3000):
            (tmp_path / "synthetic" / folder / f"{i:05d}.png").symlink_to("00000.png")
    process = subprocess.Popen(
        [sys.executable, "-m", "topformer_d2", "data", "check", "synthetic_sem_seg_train"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
        start_new_session=True,
    )
    text = b""
    while b"image/s]" not in text:
        text += os.read(process.stderr.fileno(), 100)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes
    text += process.stderr.read()
    assert process.wait(timeout=300) == 130
    assert text.decode().endswith("interrupted\n") and b"Traceback" not in text
