"""Official checkpoints in all their wrappings, safe reading, atomic writing, wrong weights."""

import argparse
import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from tests.helpers import Segmenter, official_state_dict, topformer
from topformer_d2 import get_config
from topformer_d2.checkpoint import (
    SafeCheckpointer,
    convert_official_state_dict,
    read_state_dict,
    read_weights,
    save_state_dict,
)
from topformer_d2.errors import InputError


@pytest.fixture(scope="module")
def official():
    return official_state_dict("t")


def as_classification(official):
    backbone = {
        key.removeprefix("backbone."): value
        for key, value in official.items()
        if key.startswith("backbone.") and ".SIM." not in key
    }
    return {**backbone, "classifier.bn.weight": torch.ones(3), "classifier.l.bias": torch.ones(3)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd: sd,
        lambda sd: {"state_dict": sd, "meta": {"epoch": 3}, "optimizer": {}},
        lambda sd: {"state_dict": sd, "state_dict_ema": {k: v + 1 for k, v in sd.items()}},
        lambda sd: {"state_dict": {f"module.{k}": v for k, v in sd.items()}},
        lambda sd: {"model": sd},
        lambda sd: {
            "model": {k.replace("backbone.", "backbone.module."): v for k, v in sd.items()}
        },
        lambda sd: {"net": sd, "epoch": 3},
    ],
    ids=["bare", "mmseg", "with EMA", "module.", "model", "inner module.", "net"],
)
def test_segmentation_checkpoints(official, wrap):
    wrapped = wrap(official)
    converted, report = convert_official_state_dict(wrapped)
    stem = official["backbone.tpm.stem.0.c.weight"]
    assert torch.equal(converted["backbone.pyramid.stem.weight"], stem)
    assert (len(report.used), report.missing) == (376, [])
    assert set(report.left) == set(wrapped) - {"state_dict", "model", "net"} - set(official)
    assert report.source.startswith("segmentation")


@pytest.mark.parametrize("wrapper", ["state_dict_ema", "state_dict", "model", None])
def test_classification_checkpoints(official, wrapper):
    weights = as_classification(official)
    if wrapper == "state_dict_ema":  # the EMA comes first here
        wrapped = {wrapper: weights, "state_dict": {k: v + 1 for k, v in weights.items()}}
    else:
        wrapped = {wrapper: weights} if wrapper else weights
    converted, report = convert_official_state_dict(wrapped)
    assert torch.equal(converted["backbone.pyramid.stem.weight"], weights["tpm.stem.0.c.weight"])
    assert all(key.startswith(("backbone.injection.", "sem_seg_head.")) for key in report.missing)
    assert len(converted) + len(report.missing) == 376
    left = [key for key in report.left if key != "state_dict"]
    assert left == ["classifier.bn.weight", "classifier.l.bias"]
    assert "ImageNet" in report.source


def test_report_names_what_is_missing_and_left(official):
    broken = dict(official)
    del broken["decode_head.conv_seg.bias"]
    broken["auxiliary_head.conv_seg.bias"] = torch.zeros(150)
    _, report = convert_official_state_dict(broken)
    assert report.missing == ["sem_seg_head.classifier.bias"]
    assert report.left == ["auxiliary_head.conv_seg.bias"]
    assert "sem_seg_head.classifier.bias" in str(report)
    assert "auxiliary_head.conv_seg.bias" in str(report)


def test_what_is_no_topformer_is_refused(official):
    with pytest.raises(InputError, match=r"conv1\.weight"):
        convert_official_state_dict({"state_dict": {"conv1.weight": torch.zeros(1)}})
    other = dict(official)
    other["backbone.tpm.layer4.conv.4.bn.bias"] = torch.zeros(33)
    with pytest.raises(InputError, match=r"33.*fit none"):
        convert_official_state_dict(other)


@pytest.mark.parametrize("extension", ["pth", "safetensors"])
def test_tool_converts_and_the_result_loads(official, tmp_path, extension):
    source, out = tmp_path / "official.pth", tmp_path / f"ours.{extension}"
    torch.save({"state_dict": official, "meta": {"CLASSES": ("wall",)}}, source)
    result = topformer("convert", source, out)
    assert result.returncode == 0, result.stderr
    assert "TopFormer-tiny" in result.stdout and "376" in result.stdout
    model = build_model(get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu"]))
    SafeCheckpointer(model).load(str(out))
    expected = convert_official_state_dict(official)[0]
    assert torch.equal(
        model.backbone.semantics.blocks[3].ffn.depthwise.bias.data,
        expected["backbone.semantics.blocks.3.ffn.depthwise.bias"],
    )
    assert not list(tmp_path.glob("*.partial"))


def test_tool_refuses_in_one_line(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"nothing")
    for arguments, message in [
        ((tmp_path / "absent.pth", tmp_path / "o.pth"), "does not exist"),
        ((tmp_path / "x.pth", tmp_path / "o.pth"), "x.pth is not a readable weights file"),
        ((tmp_path / "x.pth", tmp_path / "o.bin"), "end in .pth or .safetensors"),
    ]:
        result = topformer("convert", *arguments)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("error: ")
        assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "o.pth").exists()


class Payload:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickled_code_is_not_run(tmp_path):
    trap = tmp_path / "trap"
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Payload(str(trap))}, path)
    with pytest.raises(InputError, match=r"evil\.pth holds pickled Python objects"):
        read_state_dict(str(path))
    path.write_bytes(pickle.dumps(Payload(str(trap))))
    with pytest.raises(InputError, match=r"evil\.pth"):
        read_state_dict(str(path))
    assert not trap.exists()


def run_fix(refused, old, new):
    """The line of Python at the end of a refusal, with nothing but the two names."""
    exec(str(refused.value).split("alone: ")[1], {"old": old, "new": new})


def test_the_fix_for_pickled_code_keeps_all_weights(official, tmp_path):
    """As in ImageNet files of timm's training, which hold its arguments."""
    old, new = str(tmp_path / "old.pth"), str(tmp_path / "new.pth")
    weights = as_classification(official)
    averaged = {key: value + 1 for key, value in weights.items()}
    torch.save(
        {"state_dict": weights, "state_dict_ema": averaged, "args": argparse.Namespace(lr=0.1)}, old
    )
    with pytest.raises(InputError, match="pickled Python objects") as refused:
        read_state_dict(old)
    run_fix(refused, old, new)
    converted, report = convert_official_state_dict(read_state_dict(new))
    assert torch.equal(converted["backbone.pyramid.stem.weight"], averaged["tpm.stem.0.c.weight"])
    assert "state_dict_ema" in report.source


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "__author__": "x"}])
def test_the_fix_for_a_plain_pickle(tmp_path, wrap, protocol):
    """As in Detectron2's model zoo."""
    old, new = tmp_path / "old.pkl", tmp_path / "new.pth"
    weights = {"a": np.arange(3, dtype=np.float32), "b": np.float32(2)}
    old.write_bytes(pickle.dumps(wrap(weights), protocol=protocol))
    with pytest.raises(InputError, match=r"old\.pkl is a plain pickle") as refused:
        read_state_dict(str(old))
    run_fix(refused, str(old), str(new))
    read = read_weights(str(new))
    assert read["a"].tolist() == [0, 1, 2] and read["b"].item() == 2 and len(read) == 2


def test_the_fix_for_a_file_from_before_the_zip_archives(tmp_path):
    old, new = str(tmp_path / "old.pth"), str(tmp_path / "new.pth")
    content = {"model": {"a": torch.ones(2)}, "args": argparse.Namespace()}
    torch.save(content, old, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="beside its tensors") as refused:
        read_state_dict(old)
    run_fix(refused, old, new)
    assert read_weights(new)["a"].tolist() == [1, 1]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_that_hold_nothing_of_use(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"x\.{suffix} is empty: download or copy it again$"):
        read_state_dict(str(path))
    for text in (b"PK is how this text begins", b"PK\x03\x04", b"hello"):
        path.write_bytes(text)
        with pytest.raises(InputError, match="is not a readable weights file") as refused:
            read_state_dict(str(path))
        assert "pickle" not in str(refused.value).replace("UnpicklingError", "")
        assert not str(refused.value).rstrip().endswith(":")
    with pytest.raises(InputError, match="is a folder; name a weights file in it"):
        read_state_dict(str(tmp_path))


@pytest.mark.parametrize(
    "load",
    [
        lambda model, path: SafeCheckpointer(model).load(path),
        lambda model, path: DetectionCheckpointer(model).load(path),
    ],
    ids=["ours", "Detectron2's"],
)
def test_weights_that_match_nothing_are_refused(tmp_path, load):
    model = build_model(get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu"]))
    path = str(tmp_path / "w.pth")
    torch.save({"model": {"fc.weight": torch.zeros(1)}}, path)
    with pytest.raises(InputError, match=r"only 0 of.*0 keys under 'backbone\.'.*r convert"):
        load(model, path)
    save_state_dict(Segmenter("base").state_dict(), path)
    with pytest.raises(InputError, match=r"MODEL\.TOPFORMER\.VARIANT"):
        load(model, path)


def test_default_predictor_refuses_wrong_weights(tmp_path):
    path = str(tmp_path / "w.pth")
    torch.save({"model": {"fc.weight": torch.zeros(1)}}, path)
    cfg = get_config("seg_topformer_t", ["MODEL.WEIGHTS", path])
    with pytest.raises(InputError, match="only 0 of"):
        DefaultPredictor(cfg)


def test_imagenet_weights_initialise_the_backbone(official, tmp_path):
    path = str(tmp_path / "imagenet.safetensors")
    save_state_dict(convert_official_state_dict(as_classification(official))[0], path)
    model = build_model(get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu"]))
    before = model.sem_seg_head.classifier.weight.clone()
    SafeCheckpointer(model).load(path)
    stem = official["backbone.tpm.stem.0.c.weight"]
    assert torch.equal(model.backbone.pyramid.stem.weight.data, stem)
    assert torch.equal(model.sem_seg_head.classifier.weight, before)


@pytest.mark.parametrize("kind", ["", "lite_"])
def test_backbone_weights_start_detectors_too(official, tmp_path, kind):
    path = str(tmp_path / "imagenet.pth")
    converted, _ = convert_official_state_dict(as_classification(official))
    save_state_dict(converted, path)
    detector = build_model(get_config(f"det_retinanet_{kind}topformer_t"))
    SafeCheckpointer(detector).load(path)
    for key, value in converted.items():
        loaded = detector.state_dict()[key.replace("backbone.", "backbone.bottom_up.")]
        assert torch.equal(loaded, value), key
    # And a detector's start a segmenter.
    save_state_dict(detector.state_dict(), path)
    segmenter = build_model(get_config("seg_topformer_t"))
    SafeCheckpointer(segmenter).load(path)
    for name, value in detector.backbone.bottom_up.state_dict().items():
        assert torch.equal(segmenter.backbone.state_dict()[name], value), name


def test_saving_again_overwrites(tmp_path):
    model = Segmenter("tiny", num_classes=2)
    checkpointer = SafeCheckpointer(model, str(tmp_path))
    for value in (1.0, 2.0):
        torch.nn.init.constant_(model.sem_seg_head.classifier.bias, value)
        checkpointer.save("model_final")
        saved = read_state_dict(str(tmp_path / "model_final.pth"))["model"]
        assert saved["sem_seg_head.classifier.bias"].tolist() == [value, value]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_final.pth"]


def test_files_that_are_no_checkpoint(tmp_path):
    path = str(tmp_path / "x.pth")
    model = Segmenter("tiny", num_classes=2)
    for content, message in (([1], "holds a list"), ({"model": "x"}, r"'model' \(str\)")):
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            SafeCheckpointer(model).load(path)


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    checkpointer = SafeCheckpointer(Segmenter("tiny", num_classes=2), str(tmp_path))
    checkpointer.save("model_0000001")
    whole = (tmp_path / "model_0000001.pth").read_bytes()

    def break_off(data, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(OSError, match="No space"):
        checkpointer.save("model_0000001")
    assert (tmp_path / "model_0000001.pth").read_bytes() == whole
    assert checkpointer.get_checkpoint_file().endswith("model_0000001.pth")
