"""Files in 8-bit integers: what is in them, and that they answer alike."""

import os
import shutil

import numpy as np
import onnx
import pytest

from tests.helpers import exported, topformer
from topformer_d2.data.image_files import list_images
from topformer_d2.data.images import read_image
from topformer_d2.errors import InputError
from topformer_d2.export import quantize
from topformer_d2.export.quantize import quantize_model
from topformer_d2.inference import Predictor

CONFIGS = ["seg_topformer_t_synthetic", "multitask_lite_topformer_t_synthetic"]


@pytest.fixture
def images():
    return os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic", "images", "train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "size"),
    [
        (CONFIGS[0], None),
        pytest.param(CONFIGS[0], (64, 80), marks=pytest.mark.slow),
        pytest.param(CONFIGS[1], (64, 80), marks=pytest.mark.slow),
        pytest.param(CONFIGS[1], None, marks=pytest.mark.slow),
    ],
)
def test_it_answers_as_before(trained, tmp_path, images, config, size):
    cfg, _, weights = trained(config, "INPUT.MIN_SIZE_TEST", "64")
    path, output = str(tmp_path / "m.onnx"), str(tmp_path / "int8" / "m.onnx")
    exported(cfg, weights, path, size=size)
    assert quantize_model(path, images, output) == 12
    assert os.listdir(tmp_path / "int8") == ["m.onnx"]
    assert os.path.getsize(output) < 0.6 * os.path.getsize(path)
    before, after = Predictor(path), Predictor(output)
    assert after.info == before.info
    pictures = [read_image(file) for file in list_images(images)]
    scenes = zip(before(pictures), after(pictures), strict=True)
    assert np.mean([(a.label == b.label).mean() for a, b in scenes]) > 0.8

    nodes = {node.output[0]: node for node in onnx.load(output).graph.node}
    is_float = {}
    for node in nodes.values():
        if node.op_type == "Conv":
            source = nodes.get(node.input[1])
            is_float[node.name] = source is None or source.op_type != "DequantizeLinear"
    kept = {name for name, is_kept in is_float.items() if is_kept}
    assert len(kept) == 3 and all("stem" in name or "blocks.0" in name for name in kept)


def test_what_cannot_be_quantised(trained, tmp_path, images):
    cfg, _, weights = trained(CONFIGS[0])
    path = str(tmp_path / "m.onnx")
    exported(cfg, weights, path, with_preprocessing=True, size=(64, 64))
    output = str(tmp_path / "o.onnx")
    with pytest.raises(InputError, match="without `with_preprocessing`"):
        quantize_model(path, images, str(tmp_path / "unmade" / "o.onnx"))
    assert not (tmp_path / "unmade").exists()
    with pytest.raises(InputError, match="topformer export"):
        quantize_model(weights, images, output)
    exported(cfg, weights, path, size=(64, 80))
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        quantize_model(path, images, str(tmp_path / "o.xml"))
    with pytest.raises(InputError, match="no image"):
        quantize_model(path, str(tmp_path / "nowhere"), output)
    with pytest.raises(InputError, match="give it another name"):
        quantize_model(path, images, str(tmp_path / "." / "m.onnx"))
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match=r"`output` .* is a folder"):
        quantize_model(path, images, str(tmp_path / "folder.onnx"))
    assert not os.path.exists(output)
    quantize_model(path, images, output)
    with pytest.raises(InputError, match="8-bit integers already"):
        quantize_model(output, images, str(tmp_path / "again.onnx"))


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RuntimeError("no such operator"), InputError), (OSError("the disk is full"), OSError)],
)
def test_what_the_libraries_raise_is_told(trained, tmp_path, images, monkeypatch, error, raised):
    cfg, _, weights = trained(CONFIGS[0])
    path, output = str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx")
    exported(cfg, weights, path, size=(64, 80))

    def fail(*_):
        raise error

    monkeypatch.setitem(quantize._WRITERS, ".onnx", fail)
    with pytest.raises(raised, match=str(error)) as found:
        quantize_model(path, images, output)
    assert raised is OSError or (path in str(found.value) and output in str(found.value))
    assert not os.path.exists(output)


def test_ctrl_c_leaves_what_was_there(trained, tmp_path, images, monkeypatch):
    cfg, _, weights = trained(CONFIGS[0])
    path, folder = str(tmp_path / "m.onnx"), tmp_path / "int8"
    exported(cfg, weights, path, size=(64, 80))
    folder.mkdir()
    (folder / "m.onnx").write_bytes(b"before")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize, "read_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quantize_model(path, images, str(folder / "m.onnx"))
    assert os.listdir(folder) == ["m.onnx"]
    assert (folder / "m.onnx").read_bytes() == b"before"


@pytest.mark.slow
def test_tool_says_what_was_lost_of_both_tasks(trained, tmp_path, images):
    cfg, _, weights = trained(CONFIGS[1], shift=False)
    path, dataset = str(tmp_path / "m.onnx"), "synthetic_multitask_val"
    exported(cfg, weights, path, size=(64, 80), raw_boxes=True)
    args = ("--model", path, "--images", images, "--output", str(tmp_path / "o.onnx"))
    done = topformer("quantize", *args, "--dataset", dataset, "--repetitions", "1")
    assert done.returncode == 0, done.stderr
    assert f"mIoU on {dataset}" in done.stdout and f"AP on {dataset}" in done.stdout


def test_tool_says_what_was_lost(trained, tmp_path, images):
    cfg, _, weights = trained(CONFIGS[0])
    path, folder = str(tmp_path / "m.onnx"), tmp_path / "few"
    exported(cfg, weights, path, size=(64, 80))
    folder.mkdir()
    for file in list_images(images)[:2]:
        shutil.copy(file, folder)
    args = ("--model", path, "--images", str(folder), "--output", str(tmp_path / "o.onnx"))
    done = topformer("quantize", *args, "--dataset", "synthetic_sem_seg_val", "--repetitions", "2")
    assert done.returncode == 0, done.stderr
    assert "calibrated on 2 images" in done.stdout and "64x80" in done.stdout
    assert "mIoU on synthetic_sem_seg_val" in done.stdout and "AP on" not in done.stdout
    assert "network / reference" in done.stdout and "| int8 " in done.stdout


@pytest.mark.parametrize(
    ("config", "dataset", "message"),
    [
        (CONFIGS[0], "nowhere_val", "nowhere_val"),
        (CONFIGS[0], "synthetic_boxes_val", "pixel labels"),
        (
            "det_retinanet_lite_topformer_t",
            "synthetic_sem_seg_val",
            "has no boxes",
        ),
    ],
)
def test_a_dataset_is_refused_before_the_work(trained, tmp_path, images, config, dataset, message):
    cfg, _, weights = trained(config, shift=False)
    path, output = str(tmp_path / "m.onnx"), tmp_path / "o.onnx"
    exported(cfg, weights, path, size=(64, 80), raw_boxes="retinanet" in config)
    args = ("--model", path, "--images", images, "--output", str(output), "--dataset", dataset)
    failed = topformer("quantize", *args)
    assert failed.returncode == 1 and message in failed.stderr
    assert not output.exists()
