"""Every row of the paper's recipes, as its config file has it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

import topformer_d2
from tests.helpers import VARIANT_OF
from topformer_d2.data import build_test_augmentation, build_train_augmentation


@dataclass(frozen=True)
class Recipe:
    """Sizes are (width, height); `tested` has image sizes and the sizes they are tested at."""

    classes: int
    crop: tuple[int, int]
    iterations: int
    batch: int
    rate: float
    train_within: tuple[int, int]
    tested: dict[tuple[int, int], tuple[int, int]]
    depthwise: bool
    channels: int


# ADE20K: either way round, and one as long as the limit.
AT_512 = {(683, 512): (704, 512), (300, 400): (512, 704), (2100, 500): (2048, 512)}
AT_448 = {(683, 512): (608, 448), (300, 400): (448, 608), (2100, 420): (2048, 416)}
STUFF = {(640, 480): (683, 512), (480, 640): (512, 683)}
CONTEXT = {(500, 375): (520, 390), (375, 500): (390, 520), (500, 333): (520, 346)}
CITYSCAPES = {(2048, 1024): (1024, 512)}
M = {"t": 128, "s": 192, "b": 256}


def ade20k(letter, batch=16, crop=512):
    return Recipe(
        *(150, (crop, crop), 160_000, batch, 3e-4 if letter == "t" else 1.2e-4, (2048, crop)),
        *({512: AT_512, 448: AT_448}[crop], letter == "t", M[letter]),
    )


def others(letter, classes, crop, within, tested):
    return Recipe(
        *(classes, (crop, crop), 80_000, 16, 1.2e-4, within, tested, False, M[letter]),
    )


def cityscapes(iterations, long):
    return Recipe(19, (1024, 512), iterations, 8, 3e-4, (long, 512), CITYSCAPES, False, 128)


RECIPES = {
    **{f"seg_topformer_{x}": ade20k(x) for x in "tsb"},
    **{f"seg_topformer_{x}_bs32": ade20k(x, batch=32) for x in "tsb"},
    "seg_topformer_t_448": ade20k("t", crop=448),
    "seg_topformer_t_448_bs32": ade20k("t", batch=32, crop=448),
    **{f"seg_topformer_{x}_coco_stuff10k": others(x, 171, 512, (2048, 512), STUFF) for x in "tsb"},
    **{
        f"seg_topformer_{x}_pascal_context{n}": others(x, n, 480, (520, 520), CONTEXT)
        for x in "tsb"
        for n in (59, 60)
    },
    "seg_topformer_t_cityscapes": cityscapes(160_000, 1024),
    "seg_topformer_b_cityscapes": cityscapes(80_000, 512),
}


def build_on_meta(cfg):
    """The model without its weights' memory."""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


@pytest.mark.parametrize("name", RECIPES)
def test_segmentation(name):
    recipe = RECIPES[name]
    cfg = topformer_d2.get_config(name)
    assert VARIANT_OF[name.split("_")[2]] == cfg.MODEL.TOPFORMER.VARIANT
    assert recipe.crop == (cfg.INPUT.CROP.SIZE[1], cfg.INPUT.CROP.SIZE[0])
    solver = cfg.SOLVER
    assert (recipe.iterations, recipe.batch) == (solver.MAX_ITER, solver.IMS_PER_BATCH)
    assert (recipe.rate, 10.0) == (solver.BASE_LR, solver.HEAD_LR_FACTOR)
    assert (solver.WARMUP_ITERS, solver.WARMUP_FACTOR) == (1500, 1e-6)
    assert (solver.OPTIMIZER, solver.POLY_LR_POWER) == ("ADAMW", 1.0)
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == 0.01
    train = build_train_augmentation(cfg)
    assert (train[0].long, train[0].short) == recipe.train_within
    assert (train[0].ratio_range, train[1].single_category_max_area) == ((0.5, 2.0), 0.75)
    for (width, height), size in recipe.tested.items():
        image = np.zeros((height, width, 3), np.uint8)
        out = build_test_augmentation(cfg).get_transform(image).apply_image(image)
        assert out.shape == (size[1], size[0], 3)
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert len(MetadataCatalog.get(dataset).stuff_classes) == recipe.classes


@pytest.mark.parametrize("name", RECIPES)
def test_segmentation_model(name):
    recipe = RECIPES[name]
    model = build_on_meta(topformer_d2.get_config(name))
    head = model.sem_seg_head
    assert head.classifier.out_channels == recipe.classes
    assert (head.fuse.groups > 1) == recipe.depthwise
    shapes = model.backbone.output_shape()
    assert {shape.channels for shape in shapes.values()} == {recipe.channels}
    assert [shape.stride for shape in shapes.values()] == [8, 16, 32]
    assert head.dropout.p == 0.1
    assert model.backbone.semantics.blocks[-1].drop_path.rate == pytest.approx(0.1)
    assert (model.train_size, head.ignore_value) == (recipe.crop[::-1], 255)


@pytest.mark.parametrize(("letter", "channels"), [("t", 128), ("s", 192), ("b", 128)])
def test_detection(letter, channels):
    cfg = topformer_d2.get_config(f"det_retinanet_topformer_{letter}")
    assert VARIANT_OF[letter] == cfg.MODEL.TOPFORMER.VARIANT
    # RetinaNet's 1x schedule with its own rate, for 16 images.
    assert (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR) == ("SGD", 0.01)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (90_000, (60_000, 80_000))
    assert cfg.SOLVER.IMS_PER_BATCH == 16
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (800, 1333)
    assert cfg.INPUT.RANDOM_FLIP == "horizontal"
    assert cfg.DATASETS.TRAIN == ("coco_2017_train",)
    model = build_on_meta(cfg)
    assert model.num_classes == 80
    shapes = model.backbone.output_shape()
    assert {f"p{n}": (256, 2**n) for n in range(3, 8)} == {
        name: (shape.channels, shape.stride) for name, shape in shapes.items()
    }
    widths = {s.channels for s in model.backbone.bottom_up.output_shape().values()}
    assert widths == {channels}
