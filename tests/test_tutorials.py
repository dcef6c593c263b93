"""Every command and code block of docs/tutorials/ runs, on little data and for few iterations."""

import contextlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from tests.helpers import REPOSITORY, photo, save_untrained, topformer
from topformer_d2 import Predictor
from topformer_d2.config import load_config
from topformer_d2.data.formats import FORMATS as data_formats
from topformer_d2.inference.formats import FORMATS
from topformer_d2.modeling.losses import SEGMENTATION_LOSS_REGISTRY

# In one process, as they share what the first walk made.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tutorials")]
# What makes a walk short. Each of them must be in the page that is walked.
SMALLER = {
    "own_data.md": {
        "--num-train 200 --num-val 40": "--num-train 8 --num-val 4",
        "MAX_ITER: 400": "MAX_ITER: 2\n  IMS_PER_BATCH: 2",
        "SEED: 0": "SEED: 0\nDATALOADER:\n  NUM_WORKERS: 0",
    }
}


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of a tutorial's code blocks, in their order."""
    text = (REPOSITORY / "docs/tutorials" / page).read_text()
    for long, short in SMALLER.get(page, {}).items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M)


def walk(page: str, folder: Path) -> str:
    """Run all blocks of a page in `folder`; what its Python code printed."""
    printed = []
    for language, text in blocks(page):
        if name := re.match(r"# (\w+\.(?:py|yaml))\n", text):
            (folder / name[1]).write_text(text)
        if language == "bash":
            for command in re.sub(r"\\\n", "", text).splitlines():
                printed.append(run_command(shlex.split(command), command, folder))
        elif language == "python" and not name:
            (folder / "block.py").write_text(text)
            printed.append(run_python("block.py", folder=folder))
    return "\n".join(printed)


def run_command(words: list[str], command: str, folder: Path) -> str:
    if words[0] == "python":
        return run_python(*words[1:], folder=folder)
    if words[0] == "topformer":
        done = topformer(*words[1:], cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
        return done.stdout
    subprocess.run(["bash", "-e", "-c", command], cwd=folder, check=True)
    return ""


def run_python(name: str, *arguments: str, folder: Path) -> str:
    """Run a script in this process, as `python NAME ARGUMENTS` in `folder`; what it printed."""
    before = os.getcwd(), list(sys.path), sys.argv
    os.chdir(folder)
    sys.argv = [name, *arguments]
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout((folder / "printed.txt").open("w")) as printed:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, f"{name}: {stop.code}"
    finally:
        os.chdir(before[0])
        sys.path[:], sys.argv = before[1:]
        printed.close()
    return (folder / "printed.txt").read_text()


@pytest.fixture(scope="module")
def first_tutorial(tmp_path_factory, with_charts) -> tuple[Path, str]:
    """A folder in which the first tutorial was followed, and what that printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    return folder, walk("own_data.md", folder)


@pytest.fixture
def own_registries(monkeypatch) -> Iterator[None]:
    """What a tutorial registers is forgotten afterwards."""
    for registry in (SEGMENTATION_LOSS_REGISTRY, SEM_SEG_HEADS_REGISTRY):
        monkeypatch.setattr(registry, "_obj_map", {**registry._obj_map})
    known = [(formats, {**formats}) for formats in (FORMATS, data_formats)]
    yield
    for formats, before in known:
        formats.clear()
        formats.update(before)
    for name in ("my_parts", "my_format", "my_dataset"):
        sys.modules.pop(name, None)


def test_own_data(first_tutorial):
    folder, printed = first_tutorial
    assert "shapes_train: 8 images, 0 errors" in printed
    assert "(128, 160)" in printed
    assert len(list((folder / "predictions").glob("*_label.png"))) == 4
    for name in ("augmented.png", "sheet.png", "output/shapes/curves.png"):
        assert (folder / name).stat().st_size > 1000


def test_deploy(first_tutorial, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    folder, _ = first_tutorial
    monkeypatch.chdir(folder)
    # Under which all classes occur, unlike under those of two iterations.
    save_untrained(load_config("output/shapes/config.yaml"), "output/shapes/model_best.pth")
    printed = walk("deploy.md", folder)
    assert len(re.findall(r"^mIoU +[\d.]+$", printed, re.M)) == 2
    image = cv2.imread(photo("photo.png", 100, 140))
    label = Predictor("shapes.onnx")(image).label
    assert len(np.unique(label)) > 1
    plain = runpy.run_path("plain.py")["label_map"](image)
    assert (plain == label).mean() > 0.999
    session = onnxruntime.InferenceSession("shapes_labels.onnx")
    (labels,) = session.run(["labels"], {"image": image})
    assert (labels[0] == label).mean() > 0.9  # nearest neighbour: its borders are coarser


def test_extend(first_tutorial, own_registries):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    folder, _ = first_tutorial
    printed = walk("extend.md", folder)
    assert "(128, 160)" in printed and "objects_val: 4 images, 0 errors" in printed
    assert len(list((folder / "predictions_mine").glob("*_label.png"))) == 4
    log = (folder / "output/mine/log.txt").read_text()
    assert "loss_dice" in log and "SumHead" in log
