"""The values that each config key takes: one table for all the keys that are read.

Keys whose value names a part of a network, such as MODEL.TOPFORMER.SEMANTICS, are looked up where
that part is built. This module imports nothing but the rules, so that tools/docs_site.py reads it
where neither PyTorch nor Detectron2 is installed.
"""

from __future__ import annotations

import math

from .rules import Choice, Duration, ListOf, Number, Only, Rule, Text

_INFINITY = math.inf


def _whole(low: int, high: float = _INFINITY) -> Number:
    return Number(low, high, whole=True)


_POSITIVE = Number(0, above=True)
_NOT_NEGATIVE = Number(0)
# Products of two or three of them must not leave float32.
_FACTOR = Number(0, 1e9)
_SHARE = Number(0, 1)
_BELOW_ONE = Number(0, 1, below=True)
_SIDE, _LONG_SIDE = _whole(1, 1 << 16), _whole(1, 1 << 20)
_CHANNELS = _whole(1, 1 << 16)
_CLASSES = _whole(1, 1 << 16)
_NAMES = ListOf(Text(empty=False))
_ANCHORS = ListOf(ListOf(_POSITIVE, least=1), least=1)

RANGES: dict[str, Rule] = {
    "MODEL.WEIGHTS": Text(),
    "MODEL.FREEZE": _NAMES,
    "MODEL.MASK_ON": Only(False, "masks are not trained here"),
    "MODEL.KEYPOINT_ON": Only(False, "keypoints are not trained here"),
    "MODEL.PIXEL_MEAN": ListOf(Number(-_INFINITY), (3,)),
    "MODEL.PIXEL_STD": ListOf(_POSITIVE, (3,)),
    "MODEL.FPN.IN_FEATURES": _NAMES,
    "MODEL.FPN.OUT_CHANNELS": _CHANNELS,
    "MODEL.FPN.FUSE_TYPE": Choice(("sum", "avg")),
    "MODEL.ANCHOR_GENERATOR.SIZES": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _ANCHORS,
    "MODEL.ANCHOR_GENERATOR.OFFSET": _BELOW_ONE,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": _NAMES,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": _whole(-100, (1 << 16) - 1),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": _CLASSES,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": _CHANNELS,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": _whole(1, 64),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": _FACTOR,
    "MODEL.SEM_SEG_HEAD.FUSE_DEPTHWISE": Choice((None, True, False)),
    "MODEL.SEM_SEG_HEAD.DROPOUT": _BELOW_ONE,
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": ListOf(_CHANNELS),
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": ListOf(_whole(1, 1 << 10)),
    "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS": ListOf(_FACTOR),
    "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM": Choice(
        ("", "inverse_log", "effective_number", "median_frequency")
    ),
    "MODEL.SEM_SEG_LOSS.SMOOTHING": _BELOW_ONE,
    "MODEL.SEM_SEG_LOSS.FOCAL_GAMMA": Number(0, 100),
    "MODEL.SEM_SEG_LOSS.HARD_SHARE": Number(0, 1, above=True),
    "MODEL.SEM_SEG_LOSS.HARD_THRESHOLD": _BELOW_ONE,
    "MODEL.SEM_SEG_LOSS.HARD_MINIMUM": _SHARE,
    "MODEL.SEM_SEG_LOSS.EDGE_WEIGHT": _FACTOR,
    "MODEL.SEM_SEG_LOSS.EDGE_WIDTH": _whole(1, 1000),
    "MODEL.SEM_SEG_LOSS.DICE_WEIGHT": _FACTOR,
    "MODEL.SEM_SEG_LOSS.LOVASZ_WEIGHT": _FACTOR,
    "MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT": _FACTOR,
    "MODEL.TEACHER.PIXELS.CONFIG": Text(),
    "MODEL.TEACHER.PIXELS.WEIGHTS": Text(),
    "MODEL.TEACHER.PIXELS.LOGITS_WEIGHT": _FACTOR,
    "MODEL.TEACHER.PIXELS.TEMPERATURE": Number(0.01, 1000),
    "MODEL.TEACHER.PIXELS.FEATURES_WEIGHT": _FACTOR,
    "MODEL.TEACHER.BOXES.CONFIG": Text(),
    "MODEL.TEACHER.BOXES.WEIGHTS": Text(),
    "MODEL.TEACHER.BOXES.SCORES_WEIGHT": _FACTOR,
    "MODEL.TEACHER.BOXES.BOXES_WEIGHT": _FACTOR,
    "MODEL.TEACHER.BOXES.FEATURES_WEIGHT": _FACTOR,
    "MODEL.TEACHER.IMAGES.CONFIG": Text(),
    "MODEL.TEACHER.IMAGES.WEIGHTS": Text(),
    "MODEL.TEACHER.IMAGES.LOGITS_WEIGHT": _FACTOR,
    "MODEL.TEACHER.IMAGES.TEMPERATURE": Number(0.01, 1000),
    "MODEL.RETINANET.NUM_CLASSES": _CLASSES,
    "MODEL.RETINANET.IN_FEATURES": _NAMES,
    "MODEL.RETINANET.NUM_CONVS": _whole(0, 100),
    "MODEL.RETINANET.IOU_THRESHOLDS": ListOf(_SHARE),
    "MODEL.RETINANET.IOU_LABELS": ListOf(Choice((-1, 0, 1))),
    "MODEL.RETINANET.PRIOR_PROB": Number(0, 1, above=True, below=True),
    "MODEL.RETINANET.SCORE_THRESH_TEST": _SHARE,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": _whole(1),
    "MODEL.RETINANET.NMS_THRESH_TEST": _SHARE,
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": ListOf(_POSITIVE, (4,)),
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": Number(0, 100),
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": Number(-1, 1),
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": _NOT_NEGATIVE,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": Choice(("smooth_l1", "giou", "diou", "ciou")),
    "MODEL.CLS_HEAD.NUM_CLASSES": _CLASSES,
    "MODEL.CLS_HEAD.LABEL_SMOOTHING": _BELOW_ONE,
    "MODEL.TOPFORMER.DROP_PATH_RATE": _BELOW_ONE,
    "MODEL.TOPFORMER.OUT_FEATURES": _NAMES,
    "MODEL.BASELINE.OUT_FEATURES": _NAMES,
    "MODEL.BASELINE.OUTPUT_STRIDE": Choice((32, 16, 8)),
    "MODEL.MULTITASK.INSTANCE_LOSS_WEIGHT": _FACTOR,
    "DATASETS.TRAIN": _NAMES,
    "DATASETS.TEST": _NAMES,
    "DATASETS.TRAIN_WEIGHTS": ListOf(_POSITIVE),
    "DATALOADER.NUM_WORKERS": _whole(0, 1024),
    "DATALOADER.SAMPLER_TRAIN": Only(
        "TrainingSampler", "DATASETS.TRAIN_WEIGHTS sets how often a dataset's images come"
    ),
    "DATALOADER.REPEAT_THRESHOLD": Only(0.0, "images are not repeated by their classes"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": Only("choice", "INPUT.SCALE_RANGE draws the size"),
    "INPUT.MIN_SIZE_TRAIN": ListOf(_whole(0, 1 << 16)),
    "INPUT.MAX_SIZE_TRAIN": _LONG_SIDE,
    "INPUT.MIN_SIZE_TEST": _whole(0, 1 << 16),
    "INPUT.MAX_SIZE_TEST": _LONG_SIDE,
    "INPUT.TEST_SIZE_DIVISOR": _whole(1, 4096),
    "INPUT.SCALE_RANGE": ListOf(Number(0, 100, above=True), (0, 2)),
    "INPUT.RANDOM_FLIP": Choice(("horizontal", "vertical", "none")),
    "INPUT.FORMAT": Choice(("RGB", "BGR")),
    "INPUT.CROP.TYPE": Choice(("absolute", "absolute_range", "relative", "relative_range")),
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": Number(0, 1, above=True),
    "INPUT.CROP.CLASS_BALANCED_PROB": _SHARE,
    "INPUT.WARP.PROB": _SHARE,
    "INPUT.WARP.ROTATION": Number(0, 180),
    "INPUT.WARP.SCALE": ListOf(Number(0.01, 100), (2,)),
    "INPUT.WARP.SHEAR": Number(0, 40),
    "INPUT.WARP.TRANSLATION": _SHARE,
    "INPUT.WARP.PERSPECTIVE": Number(0, 0.2),  # from 0.25 on the image can fold over
    "INPUT.BLUR.PROB": _SHARE,
    "INPUT.BLUR.SIGMA": ListOf(Number(0, 100, above=True), (2,)),
    "INPUT.NOISE.PROB": _SHARE,
    "INPUT.NOISE.SIGMA": ListOf(Number(0, 255), (2,)),
    "INPUT.JPEG.PROB": _SHARE,
    "INPUT.JPEG.QUALITY": ListOf(_whole(1, 100), (2,)),
    "INPUT.CUTOUT.PROB": _SHARE,
    "INPUT.CUTOUT.MAX_HOLES": _whole(1, 100),
    "INPUT.CUTOUT.SIZE": ListOf(_SHARE, (2,)),
    "INPUT.MOSAIC.PROB": _SHARE,
    "INPUT.COPY_PASTE.PROB": _SHARE,
    "INPUT.MIN_VISIBLE": _SHARE,
    "INPUT.CLS.SIZE": _SIDE,
    "INPUT.CLS.AREA": ListOf(Number(0, 1, above=True), (2,)),
    "INPUT.CLS.RAND_AUGMENT_OPS": _whole(0, 100),
    "INPUT.CLS.RAND_AUGMENT_MAGNITUDE": _whole(0, 30),
    "INPUT.CLS.ERASING_PROB": _SHARE,
    "INPUT.CLS.MIXUP_ALPHA": Number(0, 100),
    "INPUT.CLS.CUTMIX_ALPHA": Number(0, 100),
    "SOLVER.OPTIMIZER": Choice(("ADAMW", "SGD")),
    "SOLVER.LR_SCHEDULER_NAME": Text(empty=False),
    "SOLVER.MAX_ITER": _whole(1, (1 << 31) - 1),
    "SOLVER.EPOCHS": _whole(0, 1_000_000),
    "SOLVER.MAX_TIME": Duration(),
    "SOLVER.PROCESS_TIMEOUT": Duration(or_none=False),
    "SOLVER.BASE_LR": _FACTOR,
    "SOLVER.HEAD_LR_FACTOR": _FACTOR,
    "SOLVER.BIAS_LR_FACTOR": _FACTOR,
    "SOLVER.MOMENTUM": _BELOW_ONE,
    "SOLVER.WEIGHT_DECAY": _FACTOR,
    "SOLVER.WEIGHT_DECAY_NORM": _FACTOR,
    "SOLVER.WEIGHT_DECAY_BIAS": Number(0, 1e9, or_none=True),
    "SOLVER.POLY_LR_POWER": _NOT_NEGATIVE,
    "SOLVER.GAMMA": _POSITIVE,
    "SOLVER.STEPS": ListOf(_whole(0)),
    "SOLVER.WARMUP_FACTOR": _SHARE,
    "SOLVER.WARMUP_ITERS": _whole(0, (1 << 31) - 1),
    "SOLVER.WARMUP_METHOD": Choice(("linear", "constant")),
    "SOLVER.CHECKPOINT_PERIOD": _whole(1),
    "SOLVER.IMS_PER_BATCH": _whole(1, 1 << 20),
    "SOLVER.REFERENCE_BATCH": _whole(0, 1 << 20),
    "SOLVER.REFERENCE_WORLD_SIZE": _whole(0, 1 << 20),
    "SOLVER.ACCUMULATION_STEPS": _whole(1, 1 << 20),
    "SOLVER.EMA_DECAY": _BELOW_ONE,
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": _POSITIVE,
    "TEST.EVAL_PERIOD": _whole(0),
    "TEST.DETECTIONS_PER_IMAGE": _whole(1),
    "TEST.BEST_METRICS": _NAMES,
    "TEST.PATIENCE": _whole(0),
    "TEST.AUG.MIN_SIZES": ListOf(_SIDE),
    "TEST.AUG.MAX_SIZE": _LONG_SIDE,
    "TEST.PRECISE_BN.NUM_ITER": _whole(1),
    "LOGGERS": ListOf(Choice(("tensorboard", "mlflow", "wandb"))),
    "OUTPUT_DIR": Text(empty=False),
    "SEED": _whole(-1, (1 << 31) - 1),
    "VIS_PERIOD": _whole(0),
}

# INPUT.CROP.SIZE, by INPUT.CROP.TYPE.
CROP_SIZES = {
    "absolute": ListOf(_SIDE, (2,)),
    "absolute_range": ListOf(_SIDE, (2,)),
    "relative": ListOf(Number(0, 1, above=True), (2,)),
    "relative_range": ListOf(Number(0, 1, above=True), (2,)),
}
