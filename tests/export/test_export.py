"""Exported files give what the PyTorch model gives, of every task, at sizes of all kinds."""

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from detectron2.structures import Instances

from topformer_d2.errors import InputError
from topformer_d2.export import export_model
from topformer_d2.inference.export_info import ExportInfo

SEGMENTER = "seg_topformer_t_synthetic"
JOINT = "multitask_lite_topformer_t_synthetic"
FIT = ["INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "128"]


def open_file(path):
    """A function from an array to the outputs by name, and the file's description."""
    if path.endswith(".onnx"):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        info = ExportInfo.from_onnx_metadata(session.get_modelmeta().custom_metadata_map, path)
        return lambda x: dict(
            zip(info.outputs, session.run(None, {info.input_name: x}), strict=True)
        ), info
    import openvino

    model = openvino.Core().read_model(path)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    info = ExportInfo.from_openvino(model, path)
    return lambda x: {name: compiled(x)[name] for name in info.outputs}, info


def make_image(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def predict(model, image) -> tuple[torch.Tensor | None, Instances | None]:
    """The meta-architecture's own answer to an image (H, W, 3) in the network's channel order."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
    with torch.no_grad():
        output = model([{"image": tensor}])[0]
    return output.get("sem_seg"), output.get("instances")


def normalize(cfg, image):
    x = (image - np.array(cfg.MODEL.PIXEL_MEAN)) / np.array(cfg.MODEL.PIXEL_STD)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], dtype=np.float32)


def assert_labels(labels, logits):
    """Where they differ from the argmax, the logits are equal."""
    best = logits.max(dim=0).values
    given = logits.gather(0, torch.from_numpy(labels.astype(np.int64)))[0]
    assert (best - given).max() < 1e-4
    assert (labels[0] == logits.argmax(dim=0).numpy()).mean() > 0.999


def assert_boxes(outputs, instances, size):
    """As detector_postprocess leaves them."""
    boxes = np.clip(outputs["boxes"], 0, [size[1], size[0]] * 2)
    keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    assert len(instances) > 5
    np.testing.assert_allclose(boxes[keep], instances.pred_boxes.tensor, rtol=0, atol=1e-2)
    np.testing.assert_allclose(outputs["scores"][keep], instances.scores, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(outputs["classes"][keep], instances.pred_classes)


@pytest.mark.parametrize(
    "letter", ["t", *(pytest.param(each, marks=pytest.mark.slow) for each in "sb")]
)
def test_segmenter_at_an_odd_static_size(trained, tmp_path, letter):
    cfg, model, weights = trained(f"seg_topformer_{letter}", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "9")
    path = str(tmp_path / "model.onnx")
    info, differences = export_model(cfg, weights, path, size=(93, 130), labels=True)
    assert [found.output for found in differences] == ["labels"]
    run, read = open_file(path)
    assert read == info and read.size == (93, 130) and read.batch == 1
    assert len(read.model.pixels.names) == 9 and read.versions["torch"] == torch.__version__
    image = make_image(93, 130)
    assert_labels(run(normalize(cfg, image))["labels"], predict(model, image)[0])


@pytest.mark.parametrize("extension", ["onnx", pytest.param("xml", marks=pytest.mark.slow)])
def test_segmenter_at_free_sizes_and_batches(trained, tmp_path, extension):
    if extension == "xml":
        pytest.importorskip("openvino", reason="not installed")
    cfg, model, weights = trained(SEGMENTER)
    path = str(tmp_path / f"model.{extension}")
    file_format = {"onnx": "onnx", "xml": "openvino"}[extension]
    export_model(cfg, weights, path, file_format=file_format)
    run, info = open_file(path)
    assert info.size is None and info.batch is None
    for size in ((64, 96), (33, 151), (1, 1)):
        x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model.sem_seg_head.layers(model.backbone(x))
        np.testing.assert_allclose(run(x.numpy())["logits"], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("", (77, 130)),
        pytest.param("", None, marks=pytest.mark.slow),
        pytest.param("lite_", (77, 130), marks=pytest.mark.slow),
        pytest.param("lite_", None, marks=pytest.mark.slow),
    ],
)
def test_detector(trained, tmp_path, kind, size):
    cfg, model, weights = trained(
        f"det_retinanet_{kind}topformer_t",
        *("MODEL.RETINANET.NUM_CLASSES", "5", "MODEL.FPN.OUT_CHANNELS", "32"),
    )
    path = str(tmp_path / "model.onnx")
    _, differences = export_model(cfg, weights, path, size=size)
    outputs = [found.output for found in differences]
    assert outputs[0] == "class_logits_p3" and outputs[10:] == ["boxes", "scores"]
    run, _ = open_file(path)
    image = make_image(77, 130)
    assert_boxes(run(normalize(cfg, image)), predict(model, image)[1], (77, 130))


def test_raw_boxes_become_boxes_by_the_description(trained, tmp_path):
    cfg, model, weights = trained(JOINT, shift=False)
    path = str(tmp_path / "model.onnx")
    info, _ = export_model(cfg, weights, path, raw_boxes=True)
    levels = [f"p{i}" for i in range(3, 8)]
    names = [f"{start}_{level}" for start in ("class_logits", "box_deltas") for level in levels]
    assert list(info.outputs) == ["logits", *names]
    run, read = open_file(path)
    x = torch.randn(2, 3, 70, 101, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, classes, deltas = model.network(x)
    outputs = run(x.numpy())
    for name, expected in zip(outputs, [logits, *classes, *deltas], strict=True):
        np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=1e-3)
    decoding = read.decoding
    assert decoding.strides == (8, 16, 32, 64, 128) and decoding.nms_threshold == 0.5
    for i, anchors in enumerate(model.anchor_generator(classes)):
        height, width = classes[i].shape[2:]
        middles = [
            [(column + decoding.offset) * decoding.strides[i] for column in (x, y, x, y)]
            for y in range(height)
            for x in range(width)
        ]
        made = np.array(middles)[:, None] + np.array(decoding.cell_anchors[i])
        np.testing.assert_allclose(made.reshape(-1, 4), anchors.tensor, atol=1e-4)


@pytest.mark.parametrize(
    ("extension", "size"),
    [
        ("onnx", None),
        pytest.param("xml", (75, 128), marks=pytest.mark.slow),
        pytest.param("onnx", (75, 128), marks=pytest.mark.slow),
        pytest.param("xml", None, marks=pytest.mark.slow),
    ],
)
def test_both_tasks_with_preprocessing(trained, tmp_path, size, extension):
    if extension == "xml":
        pytest.importorskip("openvino", reason="not installed")
    cfg, model, weights = trained(JOINT, *FIT)
    path = str(tmp_path / f"model.{extension}")
    file_format = {"onnx": "onnx", "xml": "openvino"}[extension]
    info, _ = export_model(
        *(cfg, weights, path),
        file_format=file_format,
        size=size,
        labels=True,
        with_preprocessing=True,
    )
    assert info.outputs == ("labels", "boxes", "scores", "classes")
    run, read = open_file(path)
    assert read == info and read.with_preprocessing
    image = make_image(144, 240)
    outputs = run(image)
    height, width = size or (77, 128)  # 144x240 within 96x128
    resized = cv2.resize(image.astype(np.float32), (width, height))[:, :, ::-1]
    logits, _ = predict(model, resized)
    logits = torch.nn.functional.interpolate(logits[None], (144, 240), mode="bilinear")[0]
    assert outputs["labels"].shape == (1, 144, 240)
    # OpenCV's and PyTorch's resizing differ in the last bits.
    assert (outputs["labels"][0] == logits.argmax(dim=0).numpy()).mean() > 0.999
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    with torch.no_grad():
        instances = model([{"image": tensor, "height": 144, "width": 240}])[0]["instances"]
    assert abs(len(instances) - len(outputs["scores"])) <= 1
    np.testing.assert_allclose(outputs["scores"][:5], instances.scores[:5], rtol=0, atol=1e-3)


def test_images_of_a_folder_are_used(trained, tmp_path, synthetic_dataset):
    cfg, _, weights = trained(SEGMENTER)
    path = str(tmp_path / "model.onnx")
    folder = f"{synthetic_dataset}/images/val"
    _, (found,) = export_model(cfg, weights, path, size=(64, 80), images=folder)
    assert found.value < 1e-4 and "on " in found.where
    with pytest.raises(InputError, match=r"`images` .*no image there"):
        export_model(cfg, weights, path, size=(64, 80), images=str(tmp_path / "none"))
