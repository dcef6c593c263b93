"""The shipped configs, the toolkit's keys, and what is said of wrong ones."""

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

import topformer_d2
from topformer_d2.config import add_topformer_config, list_configs, load_config
from topformer_d2.data import build_test_augmentation, build_train_augmentation
from topformer_d2.errors import InputError


@pytest.mark.parametrize("name", list_configs())
def test_every_config_loads_and_survives_a_round_trip(name):
    cfg = topformer_d2.get_config(name)
    merged = get_cfg()
    add_topformer_config(merged)
    assert merged != cfg
    merged.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))
    # Dumped again, for the defaults hold tuples within tuples, which YAML makes lists of.
    assert CfgNode.load_cfg(merged.dump()) == CfgNode.load_cfg(cfg.dump())


@pytest.mark.parametrize(
    ("name", "variant", "rate"),
    [("t", "tiny", 3e-4), ("s", "small", 1.2e-4), ("b", "base", 1.2e-4)],
)
def test_ade20k_recipe(name, variant, rate):
    cfg = topformer_d2.get_config(f"seg_topformer_{name}")
    assert variant == cfg.MODEL.TOPFORMER.VARIANT
    assert rate == cfg.SOLVER.BASE_LR
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (16, 160_000)
    assert (cfg.SOLVER.HEAD_LR_FACTOR, cfg.SOLVER.WARMUP_ITERS) == (10.0, 1500)
    assert cfg.SOLVER.WEIGHT_DECAY == cfg.SOLVER.WEIGHT_DECAY_NORM == 0.01
    assert cfg.INPUT.CROP.SIZE == [512, 512]
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.TEST_SIZE_DIVISOR) == (512, 32)
    assert cfg.DATASETS.TRAIN == ("ade20k_sem_seg_train",)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 150


CITYSCAPES = (2048, 1024)
# Classes, crop, iterations, batch, rate; an image's size, and the size that it is tested at.
RECIPES = {
    "t": (150, (512, 512), 160_000, 16, 3e-4, (683, 512), (704, 512)),
    "b": (150, (512, 512), 160_000, 16, 1.2e-4, (300, 400), (512, 704)),
    "t_coco_stuff10k": (171, (512, 512), 80_000, 16, 1.2e-4, (640, 480), (683, 512)),
    "s_coco_stuff10k": (171, (512, 512), 80_000, 16, 1.2e-4, (480, 640), (512, 683)),
    "b_coco_stuff10k": (171, (512, 512), 80_000, 16, 1.2e-4, (640, 480), (683, 512)),
    "t_pascal_context60": (60, (480, 480), 80_000, 16, 1.2e-4, (500, 375), (520, 390)),
    "s_pascal_context59": (59, (480, 480), 80_000, 16, 1.2e-4, (375, 500), (390, 520)),
    "b_pascal_context60": (60, (480, 480), 80_000, 16, 1.2e-4, (500, 333), (520, 346)),
    "t_cityscapes": (19, (512, 1024), 160_000, 8, 3e-4, CITYSCAPES, (1024, 512)),
    "b_cityscapes": (19, (512, 1024), 80_000, 8, 3e-4, CITYSCAPES, (1024, 512)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    classes, crop, iterations, batch, rate, (width, height), tested = RECIPES[name]
    cfg = topformer_d2.get_config(f"seg_topformer_{name}")
    assert classes == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert crop == tuple(cfg.INPUT.CROP.SIZE)
    assert (iterations, batch) == (cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH)
    assert rate == cfg.SOLVER.BASE_LR
    image = np.zeros((height, width, 3), np.uint8)
    out = build_test_augmentation(cfg).get_transform(image).apply_image(image)
    assert out.shape == (tested[1], tested[0], 3)
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert len(MetadataCatalog.get(dataset).stuff_classes) == classes
    # Tiny's fusing convolution is depthwise on ADE20K alone; Base has M = 128 on Cityscapes.
    model = build_model(cfg)
    channels = model.backbone.output_shape()["sim3"].channels
    assert (model.sem_seg_head.fuse.groups > 1) == (name == "t")
    assert (channels == 128) == (name[0] == "t" or name == "b_cityscapes")
    train = build_train_augmentation(cfg)[0]
    long = {"t_cityscapes": 1024, "b_cityscapes": 512}.get(name, 520 if "pascal" in name else 2048)
    assert (train.short, train.long) == (520 if "pascal" in name else 512, long)


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_device_fits_the_machine(monkeypatch, tmp_path, gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert device == topformer_d2.get_config("seg_topformer_t").MODEL.DEVICE
    path = tmp_path / "from_a_gpu.yaml"
    path.write_text("VERSION: 2\nMODEL:\n  DEVICE: cuda\n")
    assert device == load_config(str(path)).MODEL.DEVICE


def test_opts_override():
    cfg = topformer_d2.get_config("seg_topformer_t.yaml", ["SOLVER.BASE_LR", "0.5"])
    assert cfg.SOLVER.BASE_LR == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topformer_d2.get_config("seg_topformer_x"), r"'seg_topformer_x'.*seg_topformer_t"),
        (
            lambda: topformer_d2.get_config("seg_topformer_t", ["MODEL.TOPFORMER.VARIENT", "base"]),
            r"MODEL\.TOPFORMER\.VARIENT.*did you mean 'MODEL\.TOPFORMER\.VARIANT'",
        ),
        (
            lambda: topformer_d2.get_config("seg_topformer_t", ["SOLVER.BASE_LR"]),
            "command line",
        ),
        (lambda: load_config("nowhere.yaml"), r"nowhere\.yaml does not exist"),
    ],
    ids=["name", "key", "odd", "file"],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_unknown_key_in_a_file_names_file_and_key(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("VERSION: 2\nSOLVER:\n  BASE_LRR: 1.0\n")
    with pytest.raises(InputError, match=r"my\.yaml.*SOLVER\.BASE_LRR.*'SOLVER\.BASE_LR'"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "my.yaml"), ("_BASE_: gone.yaml", "gone.yaml"), ("- 1", "my.yaml")],
    ids=["syntax", "base", "list"],
)
def test_files_that_are_no_config_are_named(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        load_config(str(path))
