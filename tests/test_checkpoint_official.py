"""Our weights in the official layout, and official files where MODEL.WEIGHTS may name them."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from tests.helpers import (
    VARIANT_OF,
    Segmenter,
    default_predictor,
    formula_weight,
    official_state_dict,
    topformer,
)
from topformer_d2 import TopFormer, get_config
from topformer_d2.checkpoint import (
    SafeCheckpointer,
    convert_official_state_dict,
    convert_to_official,
    extract_backbone,
    extract_task,
    read_state_dict,
    save_state_dict,
)
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError

SMALL = ["MODEL.RETINANET.NUM_CLASSES", "5", "MODEL.FPN.OUT_CHANNELS", "32"]
SMALL += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6", "MODEL.DEVICE", "cpu"]


def imagenet_weights(official):
    """The backbone's as in an ImageNet file, less the classifier."""
    return {
        key.removeprefix("backbone."): value
        for key, value in official.items()
        if key.startswith("backbone.") and ".SIM." not in key
    }


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


@pytest.mark.parametrize("letter", VARIANT_OF)
def test_round_trip_of_segmenters_is_exact(letter):
    official = official_state_dict(letter)
    ours, _ = convert_official_state_dict(official)
    check_equal(convert_to_official(ours), official)
    model = Segmenter(VARIANT_OF[letter])
    check_equal(
        convert_official_state_dict(convert_to_official(model.state_dict()))[0], model.state_dict()
    )


@pytest.mark.parametrize("letter", VARIANT_OF)
def test_round_trip_of_backbones_is_exact(letter):
    official = imagenet_weights(official_state_dict(letter))
    check_equal(convert_to_official(convert_official_state_dict(official)[0]), official)
    # With the injection modules, and without a model around it.
    backbone = TopFormer(VARIANT_OF[letter]).state_dict()
    back, report = convert_official_state_dict(convert_to_official(backbone))
    check_equal(back, {f"backbone.{key}": value for key, value in backbone.items()})
    assert all(key.startswith("sem_seg_head.") for key in report.missing)


@pytest.mark.parametrize("letter", VARIANT_OF)
def test_round_trip_of_classifiers_is_exact(letter):
    official = imagenet_weights(official_state_dict(letter))
    channels = {"t": 208, "s": 296, "b": 384}[letter]
    head = {"weight": [channels], "bias": [channels], "running_mean": [channels]}
    head |= {"running_var": [channels], "num_batches_tracked": []}
    official |= {f"head.bn.{key}": formula_weight(f"head.bn.{key}", head[key]) for key in head}
    official["head.l.weight"] = formula_weight("head.l.weight", [1000, channels])
    official["head.l.bias"] = formula_weight("head.l.bias", [1000])
    ours, report = convert_official_state_dict({"state_dict_ema": official})
    assert report.left == [] and len(report.used) == len(official)
    check_equal(convert_to_official(ours), official)
    # It is the whole of a classifier, and what comes out of one is an official file.
    cfg = get_config(f"cls_topformer_{letter}", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    assert ours.keys() == model.state_dict().keys()
    check_equal(
        convert_official_state_dict(convert_to_official(model.state_dict()))[0], model.state_dict()
    )
    assert {key.split(".")[0] for key in convert_to_official(model.state_dict())} == {
        *("tpm", "trans", "head"),
    }


def test_a_classifier_reads_an_official_file_whole(tmp_path):
    model = build_model(get_config("cls_topformer_t", ["MODEL.DEVICE", "cpu"]))
    path = str(tmp_path / "official.pth")
    torch.save({"state_dict_ema": convert_to_official(model.state_dict())}, path)
    other = build_model(get_config("cls_topformer_t", ["MODEL.DEVICE", "cpu"]))
    assert not torch.equal(other.cls_head.linear.weight, model.cls_head.linear.weight)
    SafeCheckpointer(other, require_all=True).load(path)
    check_equal(other.state_dict(), model.state_dict())
    # Without the classifier nothing says which class is which.
    torch.save(imagenet_weights(official_state_dict("t")), path)
    with pytest.raises(InputError, match=r"cls_head\.norm.*MODEL\.CLS_HEAD"):
        SafeCheckpointer(other, require_all=True).load(path)


def test_a_classifier_and_a_segmenter_in_one_file_are_refused():
    weights = dict(Segmenter("tiny").state_dict())
    weights["cls_head.linear.bias"] = torch.zeros(3)
    with pytest.raises(InputError, match=r"cls_head\.linear\.bias"):
        convert_to_official(weights)


@pytest.fixture
def convert_weights():
    """Runs `topformer convert`; returns what it writes to stdout."""

    def run(*arguments):
        result = topformer("convert", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_tool_goes_both_ways(tmp_path, convert_weights):
    official = official_state_dict("s")
    names = ("official.safetensors", "ours.pth", "back.pth", "back.safetensors")
    source, ours, back, bare = (tmp_path / name for name in names)
    save_state_dict(official, str(source))
    convert_weights(source, ours)
    total = f"{len(official)} tensors (backbone {len(official) - 8}, decode_head 8)"
    for out in (back, bare):
        assert convert_weights(ours, out, "--to-official") == f"wrote {out}: {total}\n"
    check_equal(read_state_dict(str(back))["state_dict"], official)
    check_equal(read_state_dict(str(bare)), official)


@pytest.mark.parametrize("kind", ["", "lite_"])
def test_joint_models_and_detectors_need_extracting_first(tmp_path, convert_weights, kind):
    joint = build_model(get_config(f"multitask_{kind}topformer_t", SMALL)).state_dict()
    detector = extract_task(joint, "instances")
    with pytest.raises(InputError, match=r"a joint model's.*`extract_task` or `extract_backbone`"):
        convert_to_official(joint)
    with pytest.raises(InputError, match=r"a detector's.*by `extract_backbone`"):
        convert_to_official(detector)
    segmenter = extract_task(joint, "sem_seg")
    check_equal(convert_official_state_dict(convert_to_official(segmenter))[0], segmenter)
    backbone = {k: v for k, v in segmenter.items() if k.startswith("backbone.")}
    for model in (joint, detector, segmenter):
        check_equal(extract_backbone(model), backbone)
    paths = [str(tmp_path / f"{name}.pth") for name in ("detector", "backbone", "official")]
    save_state_dict(detector, paths[0])
    convert_weights(*paths[:2], "--extract", "backbone")
    convert_weights(*paths[1:], "--to-official")
    back, report = convert_official_state_dict(read_state_dict(paths[2]))
    check_equal(back, backbone)
    assert report.source == "ImageNet classification, under 'state_dict'"


def test_what_is_not_built_as_the_official_model_is_refused():
    weights = dict(Segmenter("tiny").state_dict())
    weights["pixel_mean"] = torch.zeros(3, 1, 1)  # old files of Detectron2 have it
    assert len(convert_to_official(weights)) == 376
    weights["backbone.semantics.expand.weight"] = torch.zeros(1)
    weights["auxiliary_head.classifier.bias"] = torch.zeros(1)
    del weights["backbone.injection.sim4.gate.weight"]
    message = r"2 tensors: backbone\.semantics\.expand\.weight, auxiliary_head\.classifier\.bias, "
    message += r"and needs 1 tensors: backbone\.injection\.sim4\.gate\.weight"
    with pytest.raises(InputError, match=message):
        convert_to_official(weights)
    with pytest.raises(InputError, match=r"no checkpoint of this toolkit.*without an option"):
        convert_to_official(official_state_dict("t"))
    frozen = TopFormer("tiny", norm="FrozenBN", out_features=["sim2"]).state_dict()
    assert "SIM.0.global_act.bn.running_var" in convert_to_official(frozen)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
def test_a_segmenter_loads_an_official_file(tmp_path, caplog, wrapper):
    official = official_state_dict("t")
    path = str(tmp_path / "official.pth")
    if wrapper == "state_dict":  # which comes before the average beside it
        averaged = {key: value + 1 for key, value in official.items()}
        torch.save({"state_dict": official, "state_dict_ema": averaged}, path)
    else:
        torch.save({wrapper: official} if wrapper else official, path)
    model = build_model(get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu"]))
    with caplog.at_level("INFO", logger="topformer_d2"):
        SafeCheckpointer(model, require_all=True).load(path)
    check_equal(model.state_dict(), convert_official_state_dict(official)[0])
    assert f"{path} is an official checkpoint:\nTopFormer-tiny (segmentation" in caplog.text
    assert "used    376 tensors" in caplog.text


def test_the_trainer_starts_from_an_official_file(tiny_config, tmp_path):
    """ADE20K's head has another number of classes: only its fusing convolution is taken."""
    official = official_state_dict("t")
    path = str(tmp_path / "official.pth")
    torch.save({"state_dict": official}, path)
    opts = ["MODEL.WEIGHTS", path, "MODEL.SEM_SEG_HEAD.FUSE_DEPTHWISE", "True"]
    trainer = Trainer(tiny_config(*opts))
    trainer.resume_or_load(resume=False)
    expected = convert_official_state_dict(official)[0]
    found = trainer.model.state_dict()
    others = [key for key in found if not torch.equal(found[key], expected[key])]
    assert others == ["sem_seg_head.classifier.weight", "sem_seg_head.classifier.bias"]


@pytest.mark.parametrize(
    "name",
    [
        *("seg_topformer_t", "det_retinanet_topformer_t", "det_retinanet_lite_topformer_t"),
        *("multitask_topformer_t", "multitask_lite_topformer_t"),
    ],
)
@pytest.mark.parametrize("extension", ["pth", "safetensors"])
def test_every_model_starts_from_an_official_imagenet_file(tmp_path, name, extension):
    official = imagenet_weights(official_state_dict("t"))
    path = str(tmp_path / f"imagenet.{extension}")
    save_state_dict(official, path, wrapper="state_dict_ema")
    model = build_model(get_config(name, SMALL))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    SafeCheckpointer(model).load(path)
    prefix = "backbone." if name.startswith("seg_") else "backbone.bottom_up."
    expected = {
        key.replace("backbone.", prefix): value
        for key, value in convert_official_state_dict(official)[0].items()
    }
    check_equal(model.state_dict(), before | expected)
    with pytest.raises(InputError, match=r"do not fit the config: \d+ tensors: .* is missing"):
        SafeCheckpointer(model, require_all=True).load(path)


def test_our_predictor_takes_an_official_file_and_detectron2s_a_converted_one(tmp_path):
    """docs/weights.md says what Detectron2's does with an official one."""
    official = official_state_dict("t")
    source, converted = str(tmp_path / "official.pth"), str(tmp_path / "converted.pth")
    torch.save({"state_dict": official}, source)
    save_state_dict(convert_official_state_dict(official)[0], converted)
    cfg = get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu"])
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = cv2.resize(image, (512, 512))  # which neither predictor resizes
    expected = default_predictor(cfg, source)(image)["sem_seg"]
    cfg.MODEL.WEIGHTS = converted
    assert torch.equal(DefaultPredictor(cfg)(image)["sem_seg"], expected)
    cfg.MODEL.WEIGHTS = source
    with pytest.raises(ValueError, match="Unsupported type found in checkpoint! state_dict"):
        DefaultPredictor(cfg)
    torch.save(official, source)
    with pytest.raises(InputError, match=r"official checkpoint.*topformer convert"):
        DefaultPredictor(cfg)
