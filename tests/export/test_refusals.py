"""What is not written, and what the message says."""

import errno
import math
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from topformer_d2.errors import InputError
from topformer_d2.export import export_model
from topformer_d2.export import model as export_module
from topformer_d2.export.check import check, sample_images
from topformer_d2.export.network import describe
from topformer_d2.files import room
from topformer_d2.inference.formats.onnx import OnnxRuntimeSession
from topformer_d2.inference.model_info import ModelInfo

SEGMENTER = "seg_topformer_t_synthetic"


def spoil(monkeypatch, change):
    """Have another network exported than the one it is checked against."""
    original = export_module.ExportNetwork

    def spoiled(*args, **keys):
        network = original(*args, **keys)
        with torch.no_grad():
            change(network.model)
        return network

    monkeypatch.setattr(export_module, "ExportNetwork", spoiled)


def zero_backbone(model):
    for parameter in model.backbone.parameters():
        parameter.zero_()


def test_a_network_that_differs_is_not_written(trained, tmp_path, monkeypatch):
    cfg, _, weights = trained(SEGMENTER)
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"an earlier file")
    spoil(monkeypatch, lambda model: model.sem_seg_head.classifier.bias[2].add_(0.01))
    message = r"logits: differs by 0\.01, of values up to .* \(index \(\d+, 2, .*not written"
    with pytest.raises(InputError, match=message):
        export_model(cfg, weights, str(folder / "model.onnx"), size=(64, 64))
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert (folder / "model.onnx").read_bytes() == b"an earlier file"


@pytest.mark.parametrize(
    "name, output",
    [
        ("det_retinanet_lite_topformer_t", "class_logits"),
        ("seg_topformer_t_synthetic", "logits"),
        pytest.param("multitask_lite_topformer_t_synthetic", "logits", marks=pytest.mark.slow),
        pytest.param("baseline_deeplabv3plus_mobilenetv2", "logits", marks=pytest.mark.slow),
        pytest.param("baseline_retinanet_mobilenetv3", "class_logits", marks=pytest.mark.slow),
    ],
)
def test_an_untrained_network_without_its_backbone_is_not_written(
    untrained, tmp_path, monkeypatch, name, output
):
    """Its logits are small, and it finds no box; zeros would be near them."""
    cfg, _, weights = untrained(name)
    spoil(monkeypatch, zero_backbone)
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=f"{output}.*: differs by .*not written"):
        export_model(cfg, weights, str(path), size=(96, 128))
    assert not path.exists()


DETECTOR = ("det_retinanet_lite_topformer_t", "MODEL.RETINANET.NUM_CLASSES", "5")


def perturb(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.head.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(0.01 * parameter.abs().max() * noise)


def swap_channels(model):
    first = next(p for p in model.backbone.parameters() if p.ndim == 4 and p.shape[1] == 3)
    first.copy_(first.flip(1))


def zero_head(model):
    for parameter in model.head.parameters():
        parameter.zero_()


@pytest.mark.parametrize(
    "change",
    [
        perturb,
        pytest.param(swap_channels, marks=pytest.mark.slow),
        pytest.param(zero_head, marks=pytest.mark.slow),
    ],
)
def test_a_wrong_detector_is_not_written(trained, tmp_path, monkeypatch, change):
    cfg, _, weights = trained(*DETECTOR)
    spoil(monkeypatch, change)
    with pytest.raises(InputError, match=r"(class_logits|box_deltas).*: differs by .*not written"):
        export_model(cfg, weights, str(tmp_path / "model.onnx"), size=(96, 128))
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize("key, factor", [("strides", 2), ("cell_anchors", 1.02), ("offset", 0.05)])
def test_a_wrong_decoding_is_refused(trained, monkeypatch, key, factor):
    """Not by the raw outputs, which are right, but by the boxes."""
    cfg, model, _ = trained(*DETECTOR)
    info = describe(model, ModelInfo.from_config(cfg), size=(96, 128))
    network = export_module.ExportNetwork(model, info)
    images = list(sample_images(None))[-2:]

    def run(x):
        with torch.inference_mode():
            return dict(zip(info.outputs, map(np.asarray, network(torch.tensor(x))), strict=True))

    boxes, scores = check(run, model, info, images)[-2:]
    assert boxes.value < 1e-5 and scores.value < 1e-5
    found = network.decoder.decoding
    if key == "cell_anchors":
        network.decoder.cell_anchors.mul_(factor)
    else:
        value = tuple(s * factor for s in found.strides) if key == "strides" else factor
        network.decoder.decoding = replace(found, **{key: value})
    with pytest.raises(InputError, match="boxes: differs by"):
        check(run, model, info, images)


def test_boxes_of_an_untrained_regression_are_the_same_as_they_are_seen(trained):
    """Far outside of the image, and smaller than a pixel; float32 gives them no better."""
    cfg, model, _ = trained(*DETECTOR)
    with torch.no_grad():
        model.head.bbox_pred.weight.mul_(30.0)
    info = describe(model, ModelInfo.from_config(cfg), size=(96, 128))
    network = export_module.ExportNetwork(model, info)

    def run(x):
        with torch.inference_mode():  # what another runtime's arithmetic makes of it
            raw = network.model.network(torch.tensor(x))
            deltas = [level * (1 + 4e-6) for level in raw.box_deltas]
            boxes, scores, classes = network.decoder(raw.class_logits, deltas)
            sides = torch.tensor([128.0, 96.0, 128.0, 96.0])
            boxes = torch.minimum(boxes.clamp(min=0), sides)
        return dict(zip(info.outputs, map(np.asarray, (boxes, scores, classes)), strict=True))

    boxes, _ = check(run, model, info, list(sample_images(None))[:2])
    assert 0 < boxes.value < 1e-3


def test_a_full_disk_is_named(trained, tmp_path, monkeypatch):
    """ONNX Runtime says that serialization failed; OpenVINO and onnx give no name."""
    cfg, _, weights = trained(SEGMENTER)
    limit = OSError(errno.ENOSPC, "No space left on device")
    left = tmp_path / "out" / ".m.onnx.999-01234567.partial"
    left.mkdir(parents=True)
    (left / "folded.onnx").write_bytes(b"what a killed export left")

    def fail(*_, **__):
        raise RuntimeError("Protobuf serialization failed.")

    def fail_by_disk(*_):
        raise limit

    path = str(tmp_path / "out" / "m.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", fail)
        patch.setattr(room, "_find_limit", lambda *_: limit)
        with pytest.raises(OSError, match=r"No space left on device: .*m\.onnx") as found:
            export_model(cfg, weights, path, size=(64, 64))
        assert found.value.errno == errno.ENOSPC
    with monkeypatch.context() as patch:
        patch.setattr(onnx, "save", fail_by_disk)
        with pytest.raises(OSError, match=r"No space left on device: .*m\.onnx"):
            export_model(cfg, weights, path, size=(64, 64))
    assert not list((tmp_path / "out").iterdir())
    assert room._find_limit(tmp_path, 1000) is None
    assert room._find_limit(tmp_path, 1 << 55).errno in (errno.ENOSPC, errno.EFBIG)


@pytest.mark.parametrize("name", [SEGMENTER, "det_retinanet_lite_topformer_t"])
def test_weights_that_are_not_finite_are_named(untrained, tmp_path, name):
    def spoil_weights(model):
        next(model.backbone.parameters()).view(-1)[0] = math.nan

    cfg, _, weights = untrained(name, change=spoil_weights)
    with pytest.raises(InputError, match="has NaN or infinite values in 1 tensors"):
        export_model(cfg, weights, str(tmp_path / "model.onnx"), size=(64, 64))


def test_a_network_that_cannot_run_is_not_written(trained, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("broken graph")

    cfg, _, weights = trained(SEGMENTER)
    path = str(tmp_path / "model.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeSession, "run", fail)
        with pytest.raises(InputError, match=r"cannot be run on noise of .*: broken graph; it was"):
            export_model(cfg, weights, path, size=(64, 64))
    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(InputError, match="cannot be exported as onnx: broken graph; it was not"):
        export_model(cfg, weights, path, size=(64, 64))


def test_images_that_must_be_padded_are_refused(untrained):
    cfg, _, _ = untrained("det_retinanet_lite_topformer_t")
    info = ModelInfo.from_config(cfg)
    plain = get_cfg()
    plain.MODEL.DEVICE, plain.MODEL.META_ARCHITECTURE = "cpu", "RetinaNet"
    plain.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    plain.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    plain.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    model = build_model(plain)
    for size in (None, (64, 100)):
        with pytest.raises(InputError, match=r"MODEL\.BACKBONE\.NAME.*multiples of 32.*`size` is"):
            describe(model, info, size=size)
    assert describe(model, info, size=(64, 96)).size == (64, 96)


def test_the_paths_are_tried_first(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "ExportNetwork", None)
    cfg, _, weights = trained(SEGMENTER)
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "model.bin").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name, file_format, message in (
        ("model.onnx", "onnx", r"`path` .*model\.onnx is a folder"),
        ("model.xml", "openvino", r"`path` .*model\.bin is a folder"),
        ("file/model.onnx", "onnx", r"`path` .*model\.onnx cannot be written: File exists"),
    ):
        with pytest.raises(InputError, match=message):
            export_model(cfg, weights, str(tmp_path / name), file_format=file_format)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"https://host/m\.onnx is a remote store's"):
        export_model(cfg, weights, "https://host/m.onnx")
    assert not (tmp_path / "https:").exists()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.jpg cannot be read"):
        export_model(cfg, weights, str(tmp_path / "m.onnx"), images=str(tmp_path / "images"))


def test_an_interrupted_run_leaves_nothing(trained, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    cfg, _, weights = trained(SEGMENTER)
    monkeypatch.setattr(export_module, "check", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_model(cfg, weights, str(tmp_path / "exported" / "model.onnx"), size=(64, 64))
    assert not list((tmp_path / "exported").iterdir())


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"raw_boxes": True}, "`raw_boxes` does not go with a TopFormerSegmentor"),
        ({"size": (0, 64)}, r"`size` is \(0, 64\)"),
        ({"file_format": "onxx"}, r"`file_format` is 'onxx' \(did you mean 'onnx'\?\)"),
        ({"file_format": "openvino"}, r"ends in \.xml"),
    ],
)
def test_wrong_arguments(trained, tmp_path, kwargs, message):
    cfg, _, weights = trained(SEGMENTER)
    with pytest.raises(InputError, match=message):
        export_model(cfg, weights, str(tmp_path / "model.onnx"), **kwargs)


def test_a_missing_library_is_named(trained, tmp_path, monkeypatch):
    cfg, _, weights = trained(SEGMENTER)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs onnxruntime .*pip install .*onnxruntime"):
        export_model(cfg, weights, str(tmp_path / "model.onnx"))
