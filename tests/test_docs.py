"""The examples in the documentation do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from tests.helpers import REPOSITORY, run_tool


def python_blocks(file: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", file.read_text(), re.S)


def run_python(script: Path):
    return subprocess.run(
        [sys.executable, script], cwd=script.parent, capture_output=True, text=True, timeout=120
    )


def test_the_backbone_example_prints_what_its_comment_says(tmp_path):
    block = next(b for b in python_blocks(REPOSITORY / "README.md") if "features =" in b)
    script = tmp_path / "example.py"
    script.write_text(block)
    expected = re.search(r"^# (\{.*\})$", block, re.M)[1]
    assert run_python(script).stdout.strip() == expected


def test_every_config_that_the_readme_names_exists():
    text = (REPOSITORY / "README.md").read_text() + (REPOSITORY / "datasets/README.md").read_text()
    named = set(re.findall(r"(?:configs|tools|datasets|docs)/[\w/]+\.(?:yaml|py|md|jpg)", text))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


def test_own_images_as_the_datasets_readme_shows(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "labels_train", "labels_val"):
        (tmp_path / "weeds" / folder).mkdir(parents=True)
    for i in range(6):
        label = np.kron(rng.integers(0, 3, (4, 5)), np.ones((90, 96), int)).astype(np.uint8)
        image = np.stack([label * 70, 255 - label * 70, label * 30], axis=-1)
        split = "train" if i < 4 else "val"
        cv2.imwrite(str(tmp_path / f"weeds/images/{i}.jpg"), image)
        cv2.imwrite(str(tmp_path / f"weeds/labels_{split}/{i}.png"), label)
    for block in python_blocks(REPOSITORY / "datasets/README.md"):
        name = re.match(r"# (\w+\.py)", block)[1]
        block = block.replace("cfg.OUTPUT_DIR =", "cfg.SOLVER.MAX_ITER = 2\ncfg.OUTPUT_DIR =")
        (tmp_path / name).write_text(block)
    trained = run_python(tmp_path / "train.py")
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert re.search(r"crop +[\d.]+ +[\d.]+\nweed", trained.stdout)
    weeds = tmp_path / "output/weeds"
    predicted = run_tool(
        "predict.py",
        *("--config-file", weeds / "config.yaml", "--weights", weeds / "model_final.pth"),
        *("--input", tmp_path / "weeds/images", "--output", tmp_path / "predictions"),
    )
    assert predicted.returncode == 0, predicted.stderr[-2000:]
    assert len(list((tmp_path / "predictions").glob("*_label.png"))) == 6
