"""The examples in the documentation do what they say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model

from tests.helpers import REPOSITORY, run_tool
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict


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


@pytest.mark.parametrize(
    ("config", "shown", "shape"),
    [
        ("seg_topformer_t_camvid", "label", "(90, 120)"),
        ("det_retinanet_lite_topformer_t_bccd", "picture", "(90, 120, 3)"),
    ],
)
def test_the_predictor_examples_run(tmp_path, config, shown, shape):
    block = next(b for b in python_blocks(REPOSITORY / "README.md") if config in b)
    weights = tmp_path / re.search(r'WEIGHTS = "(.+)"', block)[1]
    weights.parent.mkdir(parents=True)
    save_state_dict(build_model(get_config(config)).state_dict(), str(weights))
    photo = tmp_path / re.search(r'imread\("(.+?)"\)', block)[1]
    cv2.imwrite(str(photo), np.zeros((90, 120, 3), np.uint8))
    script = tmp_path / "example.py"
    script.write_text(f"{block}\nprint(tuple({shown}.shape))\n")
    result = run_python(script)
    assert result.stdout.splitlines()[-1:] == [shape], result.stderr[-2000:]


def test_every_config_that_the_readme_names_exists():
    text = (REPOSITORY / "README.md").read_text() + (REPOSITORY / "datasets/README.md").read_text()
    named = set(re.findall(r"(?:configs|tools|datasets|docs)/[\w/]+\.(?:yaml|py|md|jpg)", text))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


def write_datasets_readme_scripts(folder: Path) -> None:
    for block in python_blocks(REPOSITORY / "datasets/README.md"):
        name = re.match(r"# (\w+\.py)", block)[1]
        block = block.replace("cfg.OUTPUT_DIR =", "cfg.SOLVER.MAX_ITER = 2\ncfg.OUTPUT_DIR =")
        (folder / name).write_text(block)


def test_own_boxes_as_the_datasets_readme_shows(tmp_path):
    voc = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(voc / f"JPEGImages/{i}.jpg"), np.full((90, 120, 3), 40 * i, np.uint8))
        box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
        part = f"<object><name>{('bolt', 'nut')[i % 2]}</name>{box}</object>"
        (voc / f"Annotations/{i}.xml").write_text(f"<annotation>{part}</annotation>")
    (voc / "ImageSets/Main/train.txt").write_text("0\n1\n2\n3\n")
    (voc / "ImageSets/Main/val.txt").write_text("4\n5\n")
    prepared = run_tool(
        "prepare_voc_detection.py", "--source", voc, "--name", "parts", "--root", tmp_path
    )
    assert prepared.returncode == 0 and "boxes: bolt 3, nut 3" in prepared.stdout
    write_datasets_readme_scripts(tmp_path)
    trained = run_python(tmp_path / "train_boxes.py")
    assert trained.returncode == 0, trained.stderr[-2000:]
    parts = tmp_path / "output/parts"
    result = json.loads((parts / "inference/parts_val/bbox_evaluation.json").read_text())
    assert {"AP", "AP-bolt", "AP-nut"} <= result["metrics"].keys()
    predicted = run_tool(
        "predict.py",
        *("--config-file", parts / "config.yaml", "--weights", parts / "model_final.pth"),
        *("--input", voc / "JPEGImages", "--output", tmp_path / "predictions"),
    )
    assert predicted.returncode == 0, predicted.stderr[-2000:]
    assert len(list((tmp_path / "predictions").glob("*_overlay.jpg"))) == 6


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
    write_datasets_readme_scripts(tmp_path)
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
