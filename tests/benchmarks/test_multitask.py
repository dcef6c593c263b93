"""The joint model's benchmarks, run as a developer does."""

import json
import re

import pytest
import torch

from tests.helpers import run_script

CONFIG = ["--config-file", "configs/multitask_lite_topformer_t_synthetic.yaml"]
SMALL = [
    *("INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "80"),
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "0"),
]


@pytest.mark.slow
def test_compare_tasks(tmp_path):
    arguments = [*CONFIG, "--seeds", "3", "--output", tmp_path, *SMALL]
    first = run_script("benchmarks/compare_tasks.py", *arguments)
    assert first.returncode == 0, first.stderr[-2000:]
    rows = {line.split("  ")[0]: line for line in first.stdout.splitlines()[-3:]}
    assert list(rows) == ["both", "sem_seg alone", "instances alone"]
    assert [len(re.findall(r"\([\d.]+ to [\d.]+\)", row)) for row in rows.values()] == [4, 2, 2]
    done = json.loads((tmp_path / "both_seed3/done.json").read_text())
    assert f"{done['metrics']['sem_seg']['mIoU']:.1f} (" in rows["both"]
    weights = torch.load(tmp_path / "instances_alone_seed3/model_final.pth", weights_only=True)
    assert not any(key.startswith("sem_seg_head") for key in weights["model"])
    again = run_script("benchmarks/compare_tasks.py", *arguments)
    assert again.stdout.splitlines()[-3:] == first.stdout.splitlines()[-3:]
    assert "iter:" not in again.stdout  # nothing is trained again
    other = run_script("benchmarks/compare_tasks.py", *arguments, "SOLVER.BASE_LR", "0.1")
    assert other.returncode == 1 and "was trained with" in other.stderr


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["DATASETS.TEST", "('synthetic_boxes_val',)"], "'synthetic_boxes_val' has labels for one"),
        (["MODEL.META_ARCHITECTURE", "LiteRetinaNet"], "has one task"),
    ],
)
def test_compare_tasks_refuses_what_cannot_be_compared(tmp_path, opts, message):
    opts = [*opts, "TEST.BEST_METRICS", "[]"]
    result = run_script("benchmarks/compare_tasks.py", *CONFIG, "--output", tmp_path, *opts)
    assert result.returncode == 1 and message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_benchmark(tmp_path):
    result = run_script("benchmarks/benchmark_multitask.py", "--size", "128", "--repetitions", "3")
    assert "Traceback" not in result.stderr
    rows = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines()]
    rows = [row for row in rows if len(row) > 4 and row[0] and row[0].strip("-")]
    values = {row[0]: [float(x) for x in row[1:]] for row in rows}
    assert list(values) == [
        *("network", "whole", "parameters, M", "GMACs"),
        *("training step, ms", "training memory, MiB"),
    ]
    joint, detector, segmenter, backbone, one_pass, _ = values["parameters, M"]
    assert (joint, detector) == pytest.approx((1.617, 1.578), abs=5e-4)
    assert joint == pytest.approx(detector + segmenter - backbone, abs=2e-3)
    assert one_pass == pytest.approx(1, abs=1e-3)
