"""The Predictor on exported files, against PyTorch's."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from tests.helpers import exported
from tests.inference.test_whole_way import picture
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor

for library in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(library, reason="the export extra is not installed")

FORMATS = {"onnx": "m.onnx", "openvino": "m.xml"}
# export/test_all_formats.py has a fast test of OpenVINO's files, which take longer to make.
FAST_ONNX = ["onnx", pytest.param("openvino", marks=pytest.mark.slow)]
KEYS = [
    "TEST.DETECTIONS_PER_IMAGE",
    "20",
    "INPUT.MIN_SIZE_TEST",
    "96",
    "INPUT.MAX_SIZE_TEST",
    "200",
    "MODEL.DEVICE",
    "cpu",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A config and weights of both tasks."""
    folder = tmp_path_factory.mktemp("model")
    cfg = get_config("multitask_lite_topformer_t_synthetic", KEYS)
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.sem_seg_head.classifier.weight, std=0.03)
    torch.nn.init.normal_(model.head.cls_score.weight, std=0.1)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    weights = str(folder / "model.pth")
    save_state_dict(model.state_dict(), weights)
    return cfg, weights


@pytest.fixture
def export(model):
    """export_model of `model`; what was exported before is copied."""
    return partial(exported, *model)


def assert_same(scene, expected):
    assert scene.label.shape == expected.label.shape and scene.label.dtype == np.uint8
    assert (scene.label == expected.label).mean() >= 0.999
    assert scene.classes.tolist() == expected.classes.tolist()
    np.testing.assert_allclose(scene.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(scene.boxes, expected.boxes, atol=0.05)


@pytest.mark.parametrize("file_format", FAST_ONNX)
def test_any_size(model, export, tmp_path, file_format):
    path = str(tmp_path / FORMATS[file_format])
    export(path, file_format=file_format)
    of_file, own = Predictor(path, num_threads=1), Predictor(*model)
    assert of_file.info == own.info
    for size in ((96, 160), (101, 77), (131, 200)):
        image = picture(*size)
        assert_same(of_file(image), own(image))
    several = of_file([picture(96, 130, seed) for seed in range(2)], confidence=True)
    expected = own([picture(96, 130, seed) for seed in range(2)], confidence=True)
    for scene, reference in zip(several, expected, strict=True):
        assert_same(scene, reference)
        np.testing.assert_allclose(scene.confidence, reference.confidence, atol=1e-3)


@pytest.mark.slow
def test_openvino_takes_onnx(export, tmp_path):
    path = tmp_path / "m.onnx"
    export(path)
    upper = path.with_name("M.ONNX")
    path.rename(upper)
    image = picture(96, 128)
    assert_same(Predictor(upper, backend="openvino")(image), Predictor(upper)(image))


@pytest.mark.parametrize("file_format", FAST_ONNX)
def test_threads_share_a_predictor(export, tmp_path, file_format):
    path = str(tmp_path / FORMATS[file_format])
    export(path, file_format=file_format)
    predictor = Predictor(path, num_threads=1)
    images = [picture(96, 130, seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for image, scene in zip(images, pool.map(predictor, images), strict=True):
            assert_same(scene, predictor(image))


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_predictor_is_sent_to_a_spawned_process(export, tmp_path, file_format):
    path = tmp_path / FORMATS[file_format]
    export(path, file_format=file_format)
    predictor, image = Predictor(path, num_threads=1), picture(96, 130)
    assert_same(pickle.loads(pickle.dumps(predictor))(image), predictor(image))
    assert_same(copy.deepcopy(predictor)(image), predictor(image))
    if file_format == "onnx":  # one start of a process is enough
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as pool:
            assert_same(pool.submit(predictor, image).result(timeout=900), predictor(image))


@pytest.mark.slow  # test_all_formats.py has a fast form
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"cut")])
def test_openvino_without_all_of_its_weights(export, tmp_path, damage):
    path = tmp_path / "m.xml"
    export(path, file_format="openvino")
    damage(tmp_path / "m.bin")
    with pytest.raises(InputError, match=r"m\.xml .*both files"):
        Predictor(path)


@pytest.mark.parametrize("file_format", FAST_ONNX)
def test_tiles(model, export, tmp_path, file_format):
    path = str(tmp_path / FORMATS[file_format])
    export(path, file_format=file_format)
    image = picture(150, 300)
    assert_same(Predictor(path, tile_size=128)(image), Predictor(*model, tile_size=128)(image))


@pytest.mark.parametrize("file_format", FAST_ONNX)
def test_a_fixed_size_that_is_the_images(model, export, tmp_path, file_format):
    path = str(tmp_path / FORMATS[file_format])
    export(path, file_format=file_format, size=(96, 131))
    image = picture(96, 131)
    assert_same(Predictor(path)(image), Predictor(*model)(image))
    stretched = Predictor(path)(picture(50, 200))
    assert stretched.label.shape == (50, 200) and (stretched.boxes.max(0)[2:] <= [200, 50]).all()
    with pytest.raises(InputError, match="tile_size needs a model for images of any size"):
        Predictor(path, tile_size=128)


@pytest.mark.parametrize(
    ("file_format", "size", "raw_boxes"),
    [
        ("onnx", None, True),
        pytest.param("onnx", None, False, marks=pytest.mark.slow),
        pytest.param("onnx", (96, 131), False, marks=pytest.mark.slow),
        pytest.param("openvino", None, False, marks=pytest.mark.slow),
        pytest.param("openvino", (96, 131), False, marks=pytest.mark.slow),
    ],
)
def test_preprocessing_inside(model, export, tmp_path, file_format, size, raw_boxes):
    path = str(tmp_path / FORMATS[file_format])
    export(path, file_format=file_format, size=size, raw_boxes=raw_boxes, with_preprocessing=True)
    image = picture(192, 262)
    scene, expected = Predictor(path)(image), Predictor(*model)(image)
    # OpenCV rounds what it resizes to whole numbers.
    assert (scene.label == expected.label).mean() > 0.98
    best = slice(0, 5)
    np.testing.assert_allclose(scene.scores[best], expected.scores[best], atol=0.02)


@pytest.mark.parametrize("raw_boxes", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_labels_inside(model, export, tmp_path, raw_boxes):
    path = str(tmp_path / "m.onnx")
    export(path, labels=True, raw_boxes=raw_boxes)
    image = picture(96, 128)
    predictor = Predictor(path)
    assert_same(predictor(image), Predictor(*model)(image))
    with pytest.raises(InputError, match="labels alone"):
        predictor(image, confidence=True)
    with pytest.raises(InputError, match="export it with logits"):
        Predictor(path, tile_size=128)


@pytest.mark.usefixtures("native_form")
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"size": (96, 131)},
        pytest.param({"size": (96, 131), "with_preprocessing": True}, marks=pytest.mark.slow),
        pytest.param({"with_preprocessing": True}, marks=pytest.mark.slow),
    ],
)
def test_raw_boxes_become_those_of_the_decoded_file_and_of_the_model(
    model, export, tmp_path, flags
):
    raw, decoded = tmp_path / "raw.onnx", tmp_path / "decoded.onnx"
    export(raw, raw_boxes=True, **flags)
    export(decoded, **flags)
    raw, decoded = Predictor(raw, num_threads=1), Predictor(decoded, num_threads=1)
    for size in ((96, 131), (131, 200)):
        image = picture(*size)
        found, expected = raw(image), [decoded(image)]
        if not flags or (size == (96, 131) and "with_preprocessing" not in flags):
            expected.append(Predictor(*model)(image))
        assert len(found.boxes) > 5
        for scene in expected:
            assert found.classes.tolist() == scene.classes.tolist()
            np.testing.assert_allclose(found.scores, scene.scores, rtol=0, atol=1e-5)
            np.testing.assert_allclose(found.boxes, scene.boxes, rtol=0, atol=1e-2)


@pytest.mark.usefixtures("native_form")
def test_tiles_of_a_raw_file(model, export, tmp_path):
    path = tmp_path / "raw.onnx"
    export(path, raw_boxes=True)
    image = picture(150, 300)
    found = Predictor(path, tile_size=128)(image)
    expected = Predictor(*model, tile_size=128)(image)
    assert len(found.boxes) > 5 and found.classes.tolist() == expected.classes.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=1e-2)


def test_files_that_cannot_be_run(model, export, tmp_path):
    path = str(tmp_path / "m.onnx")
    export(path)
    with pytest.raises(InputError, match="has its weights inside"):
        Predictor(path, model[1])
    with pytest.raises(InputError, match=r"m\.onnx runs in onnxruntime or openvino"):
        Predictor(path, backend="torch")
    for name, backend in (("x.onnx", "onnxruntime"), ("x.xml", "openvino")):
        (tmp_path / name).write_bytes(b"no model")
        (tmp_path / "x.bin").touch()
        with pytest.raises(InputError, match=f"x.{name[2:]} is not a "):
            Predictor(str(tmp_path / name), backend=backend)
