"""`topformer doctor` on a healthy machine and on broken ones."""

import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY, start_topformer, topformer


def test_healthy():
    result = topformer("doctor")
    assert result.returncode == 0, result.stdout
    for name in ("torch", "torchvision", "detectron2", "opencv", "gpu", "topformer_d2"):
        assert f"] {name:<12}" in result.stdout
    assert "NMS works" in result.stdout
    present = next(line for line in result.stdout.splitlines() if "] present " in line)
    assert "synthetic_sem_seg_train" in present and "synthetic_multitask_val" in present
    assert "ADEChallengeData2016/images/training" in result.stdout
    assert "-> topformer data prepare ade20k" in result.stdout
    assert "pascal_context_59_sem_seg_train and 3 more expected at" in result.stdout
    assert "coco_" in result.stdout and "/coco\n" in result.stdout
    assert len(result.stdout.splitlines()) <= 40  # one screen


def test_the_form_of_label_maps(native_form):
    lines = topformer("doctor").stdout.splitlines()
    (line,) = (i for i, text in enumerate(lines) if "] label maps " in text)
    if native_form == "compiled":
        assert "[ ok ]" in lines[line] and "compiled: _native.so" in lines[line]
    else:
        assert "[none]" in lines[line] and "in Python" in lines[line]
        assert "C compiler" in lines[line + 1]


@pytest.mark.slow
def test_without_detectron2(tmp_path):
    (tmp_path / "detectron2.py").write_text("raise ImportError('not installed')")
    result = start_topformer("doctor", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1, result.stderr
    assert "[FAIL] detectron2" in result.stdout
    assert "-> topformer install-detectron2" in result.stdout
    assert "training cannot start" in result.stdout


def test_torchvision_whose_operators_do_not_load(monkeypatch):
    import torchvision

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    result = topformer("doctor")
    assert result.returncode == 1
    assert "torchvision::nms does not exist" in result.stdout
    assert "install torch and torchvision as a pair" in result.stdout


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("import topformer_d2; topformer_d2.__version__", 0),
        ("import topformer_d2; topformer_d2.Predictor", 1),
        ("from topformer_d2 import Predictor", 1),
        ("from topformer_d2.cli import main; raise SystemExit(main(['export']))", 1),
    ],
)
def test_importing_without_detectron2_says_what_to_do(tmp_path, program, status):
    (tmp_path / "detectron2.py").write_text("raise ImportError('not installed')")
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == status, result.stderr
    assert ("topformer install-detectron2" in result.stderr) == bool(status)
    assert ("Traceback" in result.stderr) == (status == 1 and "main" not in program)
