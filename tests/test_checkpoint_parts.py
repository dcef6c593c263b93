"""One task's checkpoint from a joint one and back, and joint models that start from a part."""

import pytest
import torch
from detectron2.modeling import build_model

from tests.helpers import formula_weight, official_state_dict, topformer
from topformer_d2 import get_config
from topformer_d2.checkpoint import (
    SafeCheckpointer,
    convert_official_state_dict,
    extract_task,
    merge_tasks,
    read_weights,
    save_state_dict,
    split_parts,
)
from topformer_d2.errors import InputError

KINDS = ["", "lite_"]
TASKS = ["sem_seg", "instances"]
ARCHITECTURES = {"": "RetinaNet", "lite_": "LiteRetinaNet"}
CONFIGS = {"": "multitask_topformer_t", "lite_": "multitask_lite_topformer_t_synthetic"}


def build(kind, task=None, *opts):
    """The joint model, or `task`'s alone, all from the joint config."""
    overrides = {
        None: [],
        "instances": ["MODEL.META_ARCHITECTURE", ARCHITECTURES[kind]],
        "sem_seg": [
            *("MODEL.META_ARCHITECTURE", "TopFormerSegmentor"),
            *("MODEL.BACKBONE.NAME", "build_topformer_backbone"),
        ],
    }[task]
    small = ["MODEL.RETINANET.NUM_CLASSES", "5", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6"]
    small += ["MODEL.FPN.OUT_CHANNELS", "32", "MODEL.DEVICE", "cpu"]
    return build_model(get_config(CONFIGS[kind], [*small, *overrides, *opts])).eval()


def formula_weights(model):
    """Weights for every tensor, the norms' statistics among them."""
    return {key: formula_weight(key, [*x.shape]) for key, x in model.state_dict().items()}


@pytest.fixture(scope="module", params=KINDS, ids=["full", "lite"])
def joint(request):
    """(kind, joint model with random weights, their state dict)."""
    model = build(request.param)
    model.load_state_dict(formula_weights(model))
    return request.param, model, model.state_dict()


@pytest.fixture(scope="module")
def weights():
    """A lite joint model's."""
    return formula_weights(build("lite_"))


@torch.no_grad()
def predict(model):
    image = 255 * torch.rand(3, 75, 90, generator=torch.Generator().manual_seed(0))
    return model([{"image": image, "height": 150, "width": 170}])[0]


def check_outputs(task, single, joint):
    """To 1e-5 in what both give for `task`."""
    found, expected = predict(single), predict(joint)
    assert list(found) == [task]
    if task == "sem_seg":
        torch.testing.assert_close(found[task], expected[task], rtol=0, atol=1e-5)
        return
    found, expected = found[task], expected[task]
    assert len(expected) > 10
    boxes = (found.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(*boxes, rtol=0, atol=1e-5 * 170)  # of the image's width
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    assert torch.equal(found.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("source", ["extracted", "joint"])
@pytest.mark.parametrize("task", TASKS)
def test_a_single_task_model_gives_the_joint_models_outputs(joint, tmp_path, task, source):
    """From its part of the file; and from the whole of it, the rest of which is ignored."""
    kind, model, weights = joint
    path = str(tmp_path / "w.pth")
    extracted = extract_task(weights, task)
    save_state_dict(extracted if source == "extracted" else weights, path)
    single = build(kind, task)
    assert extracted.keys() == single.state_dict().keys()
    SafeCheckpointer(single, require_all=True).load(path)
    check_outputs(task, single, model)


def test_merging_what_was_extracted_gives_the_joint_model(joint):
    _, _, weights = joint
    segmenter, detector = (extract_task(weights, task) for task in TASKS)
    for merged in (merge_tasks(segmenter, detector), merge_tasks(detector, segmenter)):
        assert merged.keys() == weights.keys()
        for key, value in weights.items():
            assert torch.equal(merged[key], value), key


def test_topformer_is_the_first_ones(weights):
    segmenter = extract_task(weights, "sem_seg")
    detector = {key: value + 1 for key, value in extract_task(weights, "instances").items()}
    for first, second, added in ((segmenter, detector, 0), (detector, segmenter, 1)):
        merged = split_parts(merge_tasks(first, second))
        expected = split_parts(weights)
        for part, offset in (
            ("TopFormer", added),
            ("sem_seg_head", 0),
            ("pyramid", 1),
            ("head", 1),
        ):
            assert merged[part].keys() == expected[part].keys()
            for key, value in expected[part].items():
                assert torch.equal(merged[part][key], value + offset), key


def test_the_weighting_of_losses_belongs_to_neither_task():
    model = build("lite_", None, "MODEL.MULTITASK.UNCERTAINTY_WEIGHTING", "True")
    weights = formula_weights(model)
    assert "loss_weighting.log_variance" in weights
    segmenter, detector = (extract_task(weights, task) for task in TASKS)
    missing = weights.keys() - merge_tasks(segmenter, detector).keys()
    assert missing == {"loss_weighting.log_variance"}


def test_what_cannot_be_extracted_is_refused(weights):
    segmenter = extract_task(weights, "sem_seg")
    headless = {key: value for key, value in weights.items() if not key.startswith("head.")}
    for given, task, message in [
        (weights, "boxes", r"task is 'boxes'; known: \['sem_seg', 'instances'\]"),
        (segmenter, "sem_seg", "not a joint model's: it has 'sem_seg' alone"),
        (segmenter, "instances", r"no 'instances': its parts are \['TopFormer', 'sem_seg_head'\]"),
        (headless, "instances", "no 'instances'.*'pyramid'"),
        ({"fc.weight": torch.zeros(1)}, "sem_seg", r"\['fc\.weight'\].*topformer convert IN OUT"),
        (official_state_dict("t"), "sem_seg", r"topformer convert IN OUT.*without an option"),
    ]:
        with pytest.raises(InputError, match=message):
            extract_task(given, task)


def test_what_cannot_be_merged_is_refused(weights):
    segmenter, detector = (extract_task(weights, task) for task in TASKS)
    backbone = {key: value for key, value in segmenter.items() if key.startswith("backbone.")}
    for first, second, message in [
        (segmenter, segmenter, "both checkpoints are of 'sem_seg'"),
        (detector, detector, "both checkpoints are of 'instances'"),
        (weights, detector, "the first checkpoint is a joint model's already"),
        (segmenter, weights, "the second checkpoint is a joint model's already"),
        (detector, backbone, r"the second checkpoint has no whole head.*\['TopFormer'\]"),
        (detector, {}, "no checkpoint of this toolkit"),
    ]:
        with pytest.raises(InputError, match=message):
            merge_tasks(first, second)


def test_differing_topformers_are_refused_by_the_first_tensor(weights):
    detector = extract_task(weights, "instances")
    small = convert_official_state_dict(official_state_dict("s"))[0]
    with pytest.raises(
        InputError,
        match=r"differ: pyramid\.blocks\.1\.project\.weight is \(24, 64, 1, 1\) in the first and "
        r"\(16, 64, 1, 1\) in the second",
    ):
        merge_tasks(small, detector)
    segmenter = extract_task(weights, "sem_seg")
    extra = {**segmenter, "backbone.injection.sim2.local.weight": torch.zeros(128, 16, 1, 1)}
    with pytest.raises(InputError, match=r"sim2\.local\.weight is absent in the first and \(128, "):
        merge_tasks(detector, extra)
    # Old files have no counters.
    old = {k: v for k, v in segmenter.items() if not k.endswith("num_batches_tracked")}
    assert len(merge_tasks(detector, old)) < len(weights)


@pytest.mark.parametrize("task", TASKS)
def test_the_joint_model_starts_from_either_tasks_file(joint, tmp_path, task, caplog):
    kind, _, weights = joint
    path = str(tmp_path / "single.pth")
    single = extract_task(weights, task)
    save_state_dict(single, path)
    model = build(kind)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    checkpointer = SafeCheckpointer(model)
    checkpointer.logger.addHandler(caplog.handler)  # setup_logger stops propagation
    checkpointer.load(path)
    checkpointer.logger.removeHandler(caplog.handler)

    own = {
        "sem_seg": ("backbone.bottom_up.", "sem_seg_head."),
        "instances": ("backbone.", "head."),
    }[task]
    for key, value in model.state_dict().items():
        assert torch.equal(value, (weights if key.startswith(own) else before)[key]), key
    assert sum(key.startswith(own) for key in before) == len(single)
    other = {"sem_seg": ["head.cls_score", "head.bbox_pred"], "instances": ["sem_seg_head.fuse"]}
    assert "not found in the checkpoint" in caplog.text
    assert all(name in caplog.text for name in other[task])
    assert "bottom_up" not in caplog.text  # all of TopFormer was there


def test_classes_that_differ_stay_as_they_were(weights, tmp_path):
    path = str(tmp_path / "segmenter.pth")
    save_state_dict(extract_task(weights, "sem_seg"), path)
    model = build("lite_", None, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "9")
    before = model.sem_seg_head.classifier.weight.clone()
    SafeCheckpointer(model).load(path)
    assert torch.equal(model.sem_seg_head.classifier.weight, before)
    assert torch.equal(model.sem_seg_head.fuse.weight, weights["sem_seg_head.fuse.weight"])


def test_tool_extracts_and_merges(weights, tmp_path):
    joint, segmenter, merged = (
        tmp_path / name for name in ("joint.pth", "new/segmenter.safetensors", "merged.pth")
    )
    torch.save({"model": weights, "optimizer": {"state": {}}, "iteration": 3}, joint)
    result = topformer("convert", joint, segmenter, "--extract", "sem_seg")
    assert result.returncode == 0, result.stderr
    expected = extract_task(weights, "sem_seg")
    written = read_weights(str(segmenter))
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], value) for key, value in expected.items())
    line = f"wrote {segmenter}: {len(expected)} tensors (TopFormer {len(expected) - 8}, "
    assert result.stdout.endswith(line + "sem_seg_head 8)\n")

    detector = tmp_path / "detector.pth"
    torch.save(extract_task(weights, "instances"), detector)  # bare
    result = topformer("convert", segmenter, merged, "--merge", detector)
    assert result.returncode == 0, result.stderr
    assert f"wrote {merged}: {len(weights)} tensors (TopFormer " in result.stdout
    written = read_weights(str(merged))
    assert all(torch.equal(written[key], value) for key, value in weights.items())


def test_the_wrong_kind_of_file_names_the_function(weights, tmp_path):
    official = str(tmp_path / "official.pth")
    with pytest.raises(InputError, match=r"own: `extract_task`.*`merge_tasks`"):
        convert_official_state_dict({"model": weights, "optimizer": {}})
    torch.save({"state_dict": official_state_dict("t"), "meta": {}}, official)
    with pytest.raises(InputError, match=r"official\.pth.*official one.*topformer convert IN OUT`"):
        read_weights(official)
