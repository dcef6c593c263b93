"""doctor.py on a healthy machine and on broken ones."""

import sys

from tests.helpers import REPOSITORY, run_tool


def test_healthy():
    result = run_tool("doctor.py")
    assert result.returncode == 0, result.stdout
    for name in ("torch", "torchvision", "detectron2", "opencv", "gpu", "topformer_d2"):
        assert f"] {name:<12}" in result.stdout
    assert "NMS works" in result.stdout
    present = next(line for line in result.stdout.splitlines() if "] present " in line)
    assert "synthetic_sem_seg_train" in present and "synthetic_multitask_val" in present
    assert "ADEChallengeData2016/images/training" in result.stdout
    assert "-> python datasets/prepare_ade20k.py" in result.stdout
    assert "pascal_context_59_sem_seg_train and 3 more expected at" in result.stdout
    assert "coco_" in result.stdout and "/coco\n" in result.stdout
    assert len(result.stdout.splitlines()) <= 40  # one screen


def test_without_detectron2(tmp_path):
    (tmp_path / "detectron2.py").write_text("raise ImportError('not installed')")
    result = run_tool("doctor.py", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "[FAIL] detectron2" in result.stdout
    assert "-> python tools/install_detectron2.py" in result.stdout
    assert "training cannot start" in result.stdout


def test_torchvision_whose_operators_do_not_load(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import torchvision\n"
        "def broken(*_):\n    raise RuntimeError('operator torchvision::nms does not exist')\n"
        "torchvision.ops.nms = broken\n"
    )
    result = run_tool("doctor.py", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "torchvision::nms does not exist" in result.stdout
    assert "install torch and torchvision as a pair" in result.stdout


def test_importing_without_detectron2_says_what_to_do(tmp_path):
    import subprocess

    (tmp_path / "detectron2.py").write_text("raise ImportError('not installed')")
    result = subprocess.run(
        [sys.executable, "-c", "import topformer_d2"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 1
    assert "python tools/install_detectron2.py" in result.stderr
