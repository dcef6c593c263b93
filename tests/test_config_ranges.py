"""What each key takes, and that a config says so before anything is built."""

import pytest

from topformer_d2 import Predictor, get_config
from topformer_d2.config import (
    add_topformer_config,
    check_parts,
    keys_without_effect,
    list_configs,
    load_config,
)
from topformer_d2.config.checking import check_values
from topformer_d2.config.ranges import RANGES
from topformer_d2.errors import InputError

LOSS = "MODEL.SEM_SEG_LOSS."
RETINANET = "MODEL.RETINANET."
TEACHER = "MODEL.TEACHER.PIXELS."


def value_of(cfg, key):
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


@pytest.mark.parametrize("name", list_configs())
def test_shipped_configs_are_within_the_ranges(name):
    cfg = get_config(name)  # else it raises
    for key in RANGES:
        value_of(cfg, key)  # the table names keys that there are


@pytest.mark.parametrize(
    ("key", "value", "takes"),
    [
        ("SOLVER.CHECKPOINT_PERIOD", "0", "a whole number, 1 or more"),
        ("SOLVER.WARMUP_ITERS", "-1", "a whole number from 0"),
        ("SOLVER.BASE_LR", "-0.1", "a number from 0 to 1000000000"),
        ("SOLVER.BASE_LR", "1e300", "a number from 0"),
        ("SOLVER.BASE_LR", "1e999", "a number from 0"),
        ("SOLVER.BASE_LR", float("nan"), "a number from 0"),
        ("SOLVER.BASE_LR", None, "a number from 0"),
        ("SOLVER.MAX_ITER", str(10**30), "from 1 to 2147483647"),
        ("SOLVER.REFERENCE_WORLD_SIZE", "5", "SOLVER.IMS_PER_BATCH 16 cannot"),
        ("SOLVER.MAX_ITER", "0", "from 1"),
        ("SOLVER.IMS_PER_BATCH", "-4", "from 1"),
        ("SOLVER.REFERENCE_BATCH", "-1", "from 0"),
        ("SOLVER.MAX_TIME", "90", "such as '90m'"),
        ("SOLVER.MAX_TIME", "0s", "such as '90m'"),
        ("SOLVER.MAX_TIME", "m90", "such as '90m'"),
        ("SOLVER.PROCESS_TIMEOUT", "0s", "such as '90m' or '1h30m'$"),
        ("SOLVER.PROCESS_TIMEOUT", None, "such as '90m' or '1h30m'$"),
        ("SOLVER.EMA_DECAY", "1.0", "below 1"),
        ("SOLVER.MOMENTUM", "1.5", "below 1"),
        ("SOLVER.POLY_LR_POWER", "-1.0", "0 or more"),
        ("SOLVER.OPTIMIZER", "ADAM", "did you mean 'ADAMW'"),
        ("SOLVER.STEPS", "(20, 10)", "the smallest first"),
        ("SOLVER.WEIGHT_DECAY_BIAS", "'x'", "a number from 0"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[]]", "a list of 1 or more"),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[]", "a list of 1 or more"),
        ("TEST.EXPECTED_RESULTS", "[['bbox']]", "a task, a metric, its value and a tolerance"),
        ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 'x', 1]]", "a task, a metric"),
        ("TEST.EXPECTED_RESULTS", "[3]", "a task, a metric"),
        ("SEED", "-2", "from -1 to 2147483647"),
        ("SEED", str(1 << 32), "from -1 to 2147483647"),
        ("DATALOADER.NUM_WORKERS", "-1", "from 0 to 1024"),
        ("DATALOADER.NUM_WORKERS", "99999", "from 0 to 1024"),
        ("INPUT.CROP.SIZE", "[64.5, 64.0]", "'absolute'"),
        ("INPUT.CROP.SIZE", "[64]", "a list of 2"),
        ("INPUT.CROP.SIZE", "[0, 64]", "from 1"),
        ("INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE is .* and at most 1"),
        ("INPUT.SCALE_RANGE", "[2.0, 0.5]", "the smaller ratio first"),
        ("INPUT.SCALE_RANGE", "[0.5]", "0 or 2"),
        ("INPUT.WARP.PROB", "1.5", "a number from 0 to 1"),
        ("INPUT.WARP.ROTATION", "-5.0", "from 0 to 180"),
        ("INPUT.WARP.SCALE", "[1.5, 0.5]", "the smaller number first"),
        ("INPUT.WARP.PERSPECTIVE", "0.3", "from 0 to 0.2"),
        ("INPUT.BLUR.SIGMA", "[0.0, 1.0]", "above 0"),
        ("INPUT.NOISE.SIGMA", "[9.0]", "a list of 2"),
        ("INPUT.JPEG.QUALITY", "[0, 50]", "from 1 to 100"),
        ("INPUT.CUTOUT.MAX_HOLES", "0", "from 1"),
        ("INPUT.CUTOUT.SIZE", "[0.5, 0.1]", "the smaller number first"),
        ("INPUT.MOSAIC.PROB", "-0.1", "from 0 to 1"),
        ("INPUT.COPY_PASTE.PROB", "1.01", "from 0 to 1"),
        ("INPUT.MIN_VISIBLE", "2.0", "from 0 to 1"),
        ("INPUT.MIN_SIZE_TEST", "-1", "from 0"),
        ("INPUT.MAX_SIZE_TEST", "0", "from 1"),
        ("INPUT.TEST_SIZE_DIVISOR", "0", "from 1"),
        ("INPUT.FORMAT", "rgb", "one of 'RGB', 'BGR'"),
        ("INPUT.RANDOM_FLIP", "both", "'horizontal'"),
        ("MODEL.PIXEL_STD", "[1.0, 0.0, 1.0]", "above 0"),
        ("MODEL.PIXEL_MEAN", "[1.0]", "a list of 3"),
        ("MODEL.PIXEL_MEAN", "['1e-3', 1.0, 1.0]", r"'1e-3' is text to YAML: write 0\.001"),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "0", "from 1"),
        ("MODEL.SEM_SEG_HEAD.DROPOUT", "1.0", "below 1"),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "99999", "from -100"),
        ("MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS", "[1.0, -1.0]", "each a number from 0"),
        ("MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM", "inverse_lg", "did you mean 'inverse_log'"),
        ("MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT", "-1.0", "from 0"),
        ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "gious", "did you mean 'giou'"),
        ("MODEL.RETINANET.FOCAL_LOSS_GAMMA", "-1.0", "from 0 to 100"),
        ("MODEL.RETINANET.FOCAL_LOSS_ALPHA", "2.0", "from -1 to 1"),
        ("MODEL.SEM_SEG_LOSS.SMOOTHING", "1.0", "below 1"),
        ("MODEL.SEM_SEG_LOSS.FOCAL_GAMMA", "-1.0", "from 0 to 100"),
        ("MODEL.SEM_SEG_LOSS.HARD_SHARE", "0.0", "above 0"),
        ("MODEL.SEM_SEG_LOSS.HARD_THRESHOLD", "1.0", "below 1"),
        ("MODEL.SEM_SEG_LOSS.HARD_MINIMUM", "1.5", "from 0 to 1"),
        ("MODEL.SEM_SEG_LOSS.EDGE_WEIGHT", "-1.0", "from 0"),
        ("MODEL.SEM_SEG_LOSS.EDGE_WIDTH", "0", "from 1 to 1000"),
        ("MODEL.SEM_SEG_LOSS.DICE_WEIGHT", "-1.0", "from 0"),
        ("MODEL.SEM_SEG_LOSS.LOVASZ_WEIGHT", "-1.0", "from 0"),
        ("MODEL.TOPFORMER.DROP_PATH_RATE", "-0.1", "below 1"),
        ("MODEL.RETINANET.NMS_THRESH_TEST", "1.5", "from 0 to 1"),
        ("MODEL.RETINANET.IOU_LABELS", "[0, 1]", "it takes 3"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[]", "a list of 1 or more"),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[]]", "a list of 1 or more"),
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", "-1.0", "above 0"),
        ("TEST.EVAL_PERIOD", "-5", "0 or more"),
        ("TEST.DETECTIONS_PER_IMAGE", "0", "1 or more"),
        ("TEST.AUG.MIN_SIZES", "(0,)", "from 1"),
        ("OUTPUT_DIR", "''", "not empty"),
        ("MODEL.MASK_ON", "True", "False alone"),
        ("MODEL.KEYPOINT_ON", "True", "False alone"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", r"DATASETS\.TRAIN_WEIGHTS"),
        ("DATALOADER.REPEAT_THRESHOLD", "0.001", r"0\.0 alone"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", r"INPUT\.SCALE_RANGE"),
    ],
)
def test_a_value_out_of_its_range_names_key_and_range(key, value, takes):
    with pytest.raises(InputError, match=rf"(?s){key} is .*{takes}|{takes}.*{key}"):
        get_config("seg_topformer_t", [key, value])


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "-1", "INPUT.WARP.PROB", "0.5"], "INPUT.WARP it"),
        (["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "999", "INPUT.MOSAIC.PROB", "1.0"], "INPUT.MOSAIC it"),
        (
            ["INPUT.CROP.ENABLED", "False", "INPUT.CROP.CLASS_BALANCED_PROB", "0.5"],
            r"CLASS_BALANCED_PROB is 0\.5, but INPUT\.CROP\.ENABLED is False",
        ),
        (
            [LOSS + "HARD_SHARE", "0.5", LOSS + "HARD_THRESHOLD", "0.7"],
            r"HARD_SHARE is 0\.5 and HARD_THRESHOLD 0\.7",
        ),
        (["MODEL.TEACHER.BOXES.WEIGHTS", "a.pth"], r"BOXES\.WEIGHTS is 'a\.pth', but CONFIG"),
        (["MODEL.RETINANET.FOCAL_LOSS_ALPHA", "-0.5"], r"FOCAL_LOSS_ALPHA is -0\.5.*or -1"),
        ([LOSS + "FOCAL_GAMMA", "-1"], r"FOCAL_GAMMA is -1; it takes a number from 0 to 100"),
        ([LOSS + "HARD_MINIMUM", "2"], r"HARD_MINIMUM is 2; it takes a number from 0 to 1"),
    ],
)
def test_keys_that_the_rest_of_the_config_cannot_have(opts, named):
    with pytest.raises(InputError, match=named):
        get_config("seg_topformer_t", opts)


@pytest.mark.parametrize(
    ("name", "opts", "unused"),
    [
        ("det_retinanet_lite_topformer_t", [LOSS + "DICE_WEIGHT", "1.0"], [LOSS + "DICE_WEIGHT"]),
        ("cls_topformer_t", ["INPUT.WARP.PROB", "0.5"], ["INPUT.WARP.PROB"]),
        ("seg_topformer_t", ["MODEL.CLS_HEAD.LABEL_SMOOTHING", "0.2"], ["MODEL.CLS_HEAD.LABEL_S"]),
        ("seg_topformer_t", [LOSS + "EDGE_WIDTH", "9"], [LOSS + "EDGE_WIDTH"]),
        ("seg_topformer_t", [LOSS + "EDGE_WIDTH", "9", LOSS + "EDGE_WEIGHT", "2.0"], []),
        ("seg_topformer_t", ["MODEL.TEACHER.IMAGES.TEMPERATURE", "4.0"], ["MODEL.TEACHER.IMAGES"]),
        ("seg_topformer_t", ["INPUT.WARP.ROTATION", "20.0"], ["INPUT.WARP.ROTATION"]),
        ("seg_topformer_t", ["INPUT.WARP.ROTATION", "20.0", "INPUT.WARP.PROB", "0.5"], []),
        (
            "cls_topformer_t",
            ["INPUT.CLS.RAND_AUGMENT_MAGNITUDE", "5", "INPUT.CLS.RAND_AUGMENT_OPS", "0"],
            ["INPUT.CLS.RAND_AUGMENT_MAGNITUDE"],
        ),
        (
            "det_retinanet_lite_topformer_t",
            [RETINANET + "FOCAL_LOSS_ALPHA", "0.5", RETINANET + "QUALITY_TARGETS", "True"],
            [RETINANET + "FOCAL_LOSS_ALPHA"],
        ),
        (
            "seg_topformer_t",
            [
                *(TEACHER + "CONFIG", "camvid_s", TEACHER + "TEMPERATURE", "4.0"),
                *(TEACHER + "LOGITS_WEIGHT", "0.0", TEACHER + "FEATURES_WEIGHT", "1.0"),
            ],
            [TEACHER + "TEMPERATURE"],
        ),
        *((name, [], []) for name in list_configs()),
    ],
)
def test_keys_without_effect_are_named(name, opts, unused):
    found = keys_without_effect(get_config(name, opts))
    assert len(found) == len(unused)
    assert all(text.startswith(key) for text, key in zip(found, unused, strict=True))


def test_all_problems_are_named_at_once(tmp_path):
    (tmp_path / "my.yaml").write_text("SOLVER: {MAX_ITER: 0, WARMUP_ITERS: -1}\nSEED: -7\n")
    with pytest.raises(InputError, match=r"^3 values of the config: ") as refused:
        load_config(tmp_path / "my.yaml")
    for part in ("SOLVER.MAX_ITER is 0", "SOLVER.WARMUP_ITERS is -1", "SEED is -7"):
        assert part in str(refused.value)


def test_missing_keys_are_not_looked_at():
    cfg = get_config("seg_topformer_t")
    del cfg["SOLVER"], cfg.INPUT["CROP"], cfg.MODEL["RETINANET"]
    check_values(cfg)


def test_detectron2s_own_defaults_are_within_the_ranges():
    from detectron2.config import get_cfg

    cfg = get_cfg()
    check_values(cfg)
    add_topformer_config(cfg)
    check_values(cfg)


@pytest.mark.parametrize(
    ("config", "key", "name", "meant"),
    [
        ("seg_topformer_t", "BACKBONE.NAME", "build_topformer_backbon", "build_topformer_backbone"),
        ("seg_topformer_t", "SEM_SEG_HEAD.NAME", "TopFormerHead", "TopFormerSegmentationHead"),
        ("seg_topformer_t", "META_ARCHITECTURE", "TopFormerSegmenter", "TopFormerSegmentor"),
        (
            "det_retinanet_topformer_t",
            "ANCHOR_GENERATOR.NAME",
            "AnchorGenerator",
            "RotatedAnchorGenerator|DefaultAnchorGenerator",
        ),
    ],
)
def test_unknown_parts_are_named(config, key, name, meant):
    cfg = get_config(config, [f"MODEL.{key}", name])
    message = rf"MODEL\.{key} is '{name}', which is not registered \(did you mean '({meant})'"
    for call in (check_parts, lambda c: Predictor(c, "w.pth")):
        with pytest.raises(InputError, match=message):
            call(cfg)


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x", "cuda:-1", "mps", "cuda:99"])
def test_devices_that_are_not_there(monkeypatch, device):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.empty", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match=f"MODEL.DEVICE is '{device}'"):
        get_config("seg_topformer_t", ["MODEL.DEVICE", device or "''"])
