"""The examples in the documentation do what they say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from tests.helpers import REPOSITORY, run_script, topformer
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.export import export_model


def python_blocks(file: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", file.read_text(), re.S)


def all_python_blocks() -> list[str]:
    """Of the README and of all pages."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    return [block for page in pages for block in python_blocks(page)]


def test_the_backbone_example_prints_what_its_comment_says(tmp_path):
    block = next(b for b in all_python_blocks() if "features =" in b)
    script = tmp_path / "example.py"
    script.write_text(block)
    expected = re.search(r"^# (\{.*\})$", block, re.M)[1]
    assert run_script(script, cwd=tmp_path).stdout.strip() == expected


@pytest.mark.parametrize(
    ("config", "call", "shown", "shape"),
    [
        ("seg_topformer_t_camvid", "topformer_d2.Predictor(", "scene.label", "(90, 120)"),
        ("seg_topformer_t_camvid", "DefaultPredictor(", "label", "(90, 120)"),
        ("det_retinanet_lite_topformer_t_bccd", "DefaultPredictor(", "picture", "(90, 120, 3)"),
        ("multitask_lite_topformer_t_camvid", "DefaultPredictor(", "label", "(90, 120)"),
    ],
)
def test_the_predictor_examples_run(tmp_path, config, call, shown, shape):
    block = next(b for b in all_python_blocks() if config in b and call in b)
    weights = tmp_path / re.search(r'"(output/.+\.pth)"', block)[1]
    weights.parent.mkdir(parents=True)
    save_state_dict(build_model(get_config(config)).state_dict(), str(weights))
    photo = tmp_path / re.search(r'imread\("(.+?)"\)', block)[1]
    cv2.imwrite(str(photo), np.zeros((90, 120, 3), np.uint8))
    script = tmp_path / "example.py"
    script.write_text(f"{block}\nprint(tuple({shown}.shape))\n")
    result = run_script(script, cwd=tmp_path)
    assert result.stdout.splitlines()[-1:] == [shape], result.stderr[-2000:]


@pytest.mark.slow
def test_the_examples_of_deployment_run(tmp_path):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnx", reason="the export extra is not installed")
    of_file, of_stranger = python_blocks(REPOSITORY / "docs/deploy.md")
    (of_logits,) = python_blocks(REPOSITORY / "docs/label_maps.md")
    cfg = get_config("seg_topformer_t_synthetic")
    save_state_dict(build_model(cfg).state_dict(), str(tmp_path / "model.pth"))
    export_model(cfg, str(tmp_path / "model.pth"), str(tmp_path / "model.onnx"))
    cv2.imwrite(str(tmp_path / "street.jpg"), np.zeros((90, 120, 3), np.uint8))
    script = tmp_path / "example.py"
    script.write_text(
        f"{of_file}\nimport torch\nheight, width = 90, 120\nlogits = torch.rand(6, 64, 86)\n"
        f"{of_logits}\n{of_stranger}\nprint(scene.label.shape, tuple(labels.shape))\n"
    )
    result = run_script(script, cwd=tmp_path)
    assert result.stdout.splitlines()[-1:] == ["(90, 120) (90, 120)"], result.stderr[-2000:]


def test_every_file_that_a_page_names_exists():
    pages = [REPOSITORY / "README.md", REPOSITORY / "datasets/README.md"]
    pages += sorted((REPOSITORY / "docs").glob("**/*.md"))
    text = "".join(page.read_text() for page in pages)
    kinds = "configs|tools|benchmarks|datasets|docs"
    named = set(re.findall(rf"(?<![\w/])(?:{kinds})/[\w/]+\.(?:yaml|py|md)", text))
    named.remove("tools/plain_train_net.py")  # Detectron2's
    assert len(named) > 20
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize(
    "page",
    [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), REPOSITORY / "datasets/README.md"],
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert anchor in {
                re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings
            }, target


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) < 150


# Tests that share what its commands made run in one process.
of_custom_data = pytest.mark.xdist_group("custom_data")


@pytest.fixture(scope="module")
def custom_data(tmp_path_factory):
    """A folder where the files of docs/custom_data.md are, and its commands have been run."""
    folder = tmp_path_factory.mktemp("custom")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    text = (REPOSITORY / "docs/custom_data.md").read_text()
    for block in re.findall(r"```(?:yaml|python)\n(.*?)```", text, re.S):
        (folder / re.match(r"# (\w+\.\w+)", block)[1]).write_text(block)
    for block in re.findall(r"```bash\n(.*?)```", text, re.S):
        for command in re.sub(r"\\\n", "", block).splitlines():
            words = shlex.split(command)
            if words[0] != "topformer":
                subprocess.run(["bash", "-e", "-c", command], cwd=folder, check=True)
                continue
            if words[1] == "train":
                words += ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]
            done = topformer(*words[1:], cwd=folder)
            assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    return folder


@pytest.mark.slow
@of_custom_data
def test_own_pixel_labels_as_the_documentation_shows(custom_data):
    log = (custom_data / "output/shapes/log.txt").read_text()
    assert re.search(r"\ndisc +[\d.]+ +[\d.]+\nsquare", log)
    kept = (custom_data / "output/shapes/config.yaml").read_text()
    assert "IMAGES: my_data/images/train" in kept and "NUM_CLASSES: 6" in kept
    assert cv2.imread(str(custom_data / "sheet.png")).shape[1] > 3 * 160
    assert len(list((custom_data / "predictions").glob("*_label.png"))) == 8


@pytest.mark.slow
@of_custom_data
def test_the_readmes_own_images(custom_data):
    """What follows the training, which docs/custom_data.md has as well."""
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    (block,) = (block for block in blocks if "shapes.yaml" in block)
    commands = [shlex.split(line) for line in re.sub(r"\\\n", "", block).splitlines()]
    assert commands[0] == ["topformer", "train", "--config-file", "shapes.yaml"]
    for words in commands[1:]:
        done = topformer(*words[1:], cwd=custom_data)
        assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((custom_data / "predictions_onnx").glob("*_label.png"))) == 8


@pytest.mark.slow
@of_custom_data
def test_own_boxes_as_the_documentation_shows(custom_data):
    assert len(list((custom_data / "boxes").glob("*_overlay.jpg"))) == 8
    assert (custom_data / "boxes.json").is_file()
    log = (custom_data / "output/custom_detection/log.txt").read_text()
    assert re.search(r"triangle +\| +[\d.]+ +\|", log)


@pytest.mark.slow
@of_custom_data
def test_own_data_for_both_as_the_documentation_shows(custom_data):
    drawn = custom_data / "both"
    assert [len(list(drawn.glob(f"*_{kind}"))) for kind in ("label.png", "overlay.jpg")] == [8, 8]
    log = (custom_data / "output/custom_multitask/log.txt").read_text()
    assert re.search(r"\ndisc +[\d.]+ +[\d.]+\nsquare", log)
    assert re.search(r"triangle +\| +[\d.]+ +\|", log)
    assert "have no label" not in log


@pytest.mark.slow
@of_custom_data
def test_own_data_mixed_as_the_documentation_shows(custom_data):
    output = custom_data / "output/mixed"
    best = torch.load(output / "model_best.pth", weights_only=True)["metrics"]
    assert list(best) == ["sem_seg/mIoU", "bbox/AP"]
    kept = (output / "config.yaml").read_text()
    assert "NUM_CLASSES: 6" in kept and "NUM_CLASSES: 5" in kept


@pytest.mark.slow
@of_custom_data
def test_own_data_registered_by_hand_as_the_documentation_shows(custom_data):
    script = custom_data / "train_by_hand.py"
    block = script.read_text()
    script.write_text(
        block.replace("cfg.OUTPUT_DIR =", "cfg.SOLVER.MAX_ITER = 2\ncfg.OUTPUT_DIR =")
    )
    trained = subprocess.run(
        [sys.executable, script], cwd=custom_data, capture_output=True, text=True, timeout=900
    )
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert re.search(r"disc +[\d.]+ +[\d.]+\nsquare", trained.stdout)
