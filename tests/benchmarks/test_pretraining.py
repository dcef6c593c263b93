"""The benchmark of pretraining, and the page's script without labels."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.pretraining import NAMES, make_data
from tests.helpers import REPOSITORY, photo, run_script
from topformer_d2.checkpoint import read_weights
from topformer_d2.data.class_folders import ClassFolders
from topformer_d2.data.images import read_image, read_label
from topformer_d2.modeling import TopFormer


def test_the_data_is_the_same_each_time_and_its_labels_are_right(tmp_path):
    for name in ("a", "b"):
        make_data(tmp_path / name, images=40, labelled=10)
    for kind in ("classes/train", "labelled/images", "val/labels"):
        files = sorted(
            path.relative_to(tmp_path / "a") for path in (tmp_path / "a" / kind).rglob("*.png")
        )
        assert len(files) == {"classes/train": 40, "labelled/images": 10, "val/labels": 200}[kind]
        for file in files[:10]:
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    # A texture's images have its colour, which the label maps' pixels of its index have as well.
    labelled = tmp_path / "a/labelled"
    label = read_label(labelled / "labels/2000000.png")
    image = read_image(labelled / "images/2000000.png", "RGB").astype(float)
    assert 1 < len(np.unique(label)) <= 4
    means = [image[label == kind].mean(0) for kind in np.unique(label)]
    assert all(np.abs(a - b).max() > 20 for a, b in pairwise(means))
    entry = ClassFolders(str(tmp_path / "a/classes/train"), tuple(NAMES))
    assert len(entry.records()) == 40 and len(entry.class_names()) == 150


@pytest.mark.slow
def test_the_benchmark_prints_a_table_and_goes_on(tmp_path):
    words = ["--output", tmp_path / "out", "--seeds", "3", "--images", "200", "--labelled", "40"]
    words += ["--pretraining", "3", "--iterations", "3"]
    for _ in range(2):
        found = run_script("benchmarks/pretraining.py", *words)
        assert found.returncode == 0, found.stderr[-2000:]
        rows = [line for line in found.stdout.splitlines() if line.startswith("|")]
        assert rows[0] == "| mIoU from | seed 3 | mean |" and len(rows) == 4
    classifier = read_weights(str(tmp_path / "out/classifier_seed3/model_final.pth"))
    assert classifier["cls_head.linear.bias"].shape == (150,)
    words[-1] = "4"
    assert "was made with" in run_script("benchmarks/pretraining.py", *words).stderr


@pytest.mark.slow
def test_the_script_without_labels(tmp_path):
    pytest.importorskip("lightly", reason="lightly is not installed")
    page = (REPOSITORY / "docs/pretraining.md").read_text()
    script, images = tmp_path / "self_supervised.py", tmp_path / "images"
    text = re.search(r"```python\n(.*?)```", page, re.S)[1]
    assert "BATCH = 64" in text
    script.write_text(text.replace("BATCH = 64", "BATCH = 4"))
    images.mkdir()
    for i, name in enumerate(("0.png", "1.jpeg", "2.JPG")):
        photo(images / name, seed=i)
    out = tmp_path / "out.pth"
    # What sys.exit is given is its status.
    assert "has 3 images" in str(run_script(script, images, out, "1").returncode)
    # One image more than a batch.
    for i, name in enumerate(("3.JPEG", "4.webp")):
        photo(images / name, seed=i)
    found = run_script(script, images, out, "1")
    assert found.returncode == 0 and "epoch 0: loss" in found.stdout
    weights = read_weights(str(out))
    backbone = TopFormer("tiny")
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in weights.items()}, False)
    assert torch.equal(backbone.pyramid.stem.weight, weights["backbone.pyramid.stem.weight"])
