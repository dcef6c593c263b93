"""Every config key that the toolkit adds to Detectron2's, and configs that lack some of them."""

from __future__ import annotations

import copy
import functools

import torch
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from .input_keys import add_input_config
from .loss_keys import add_loss_config


def add_topformer_config(cfg: CN) -> None:
    """Add the keys of TopFormer, its head, recipe and evaluation to a Detectron2 config.

    None as a default means "as MODEL.TOPFORMER.VARIANT has it" (paper, Table 1 and Section 4.1).
    MODEL.DEVICE becomes "cpu" where PyTorch finds no GPU.
    """
    # The backbone TopFormer: token pyramid, semantics extractor, and semantics injection.
    cfg.MODEL.TOPFORMER = CN()
    # The size of the network (Table 1): tiny | small | base
    cfg.MODEL.TOPFORMER.VARIANT = "base"
    # Token pyramid (Sec. 3.1): kernel size of each inverted-residual block, without the stem.
    cfg.MODEL.TOPFORMER.BLOCK_KERNEL_SIZES = None
    # Token pyramid: expansion ratio of each inverted-residual block.
    cfg.MODEL.TOPFORMER.BLOCK_EXPANSIONS = None
    # Token pyramid: output channels of each inverted-residual block.
    cfg.MODEL.TOPFORMER.BLOCK_CHANNELS = None
    # Token pyramid: stride of each inverted-residual block.
    cfg.MODEL.TOPFORMER.BLOCK_STRIDES = None
    # Token pyramid: output channels of the first convolution.
    cfg.MODEL.TOPFORMER.STEM_CHANNELS = None
    # Activation of the token pyramid: relu (the official weights) | relu6 (the paper's text)
    cfg.MODEL.TOPFORMER.PYRAMID_ACTIVATION = "relu"
    # Semantics extractor (Sec. 3.2): number of transformer blocks.
    cfg.MODEL.TOPFORMER.NUM_BLOCKS = None
    # Semantics extractor: attention heads of each block.
    cfg.MODEL.TOPFORMER.NUM_HEADS = None
    # Semantics extractor: channels of the keys and queries of one head.
    cfg.MODEL.TOPFORMER.KEY_DIM = None
    # Semantics extractor: channels of the values of one head.
    cfg.MODEL.TOPFORMER.VALUE_DIM = None
    # Semantics extractor: hidden width of the feed-forward network as a multiple of the tokens'.
    cfg.MODEL.TOPFORMER.FFN_RATIO = None
    # Stochastic depth: the rate of the last block. The rates rise to it linearly from 0.
    cfg.MODEL.TOPFORMER.DROP_PATH_RATE = 0.1
    # What extracts the semantics (Table 4): sase | ffn (no attention) | ppm (PSPNet's) |
    # aspp (DeepLab's) | none
    cfg.MODEL.TOPFORMER.SEMANTICS = "sase"
    # Which tokens the extractor gets (Table 2): pyramid (tokens of all scales) | last (of stride
    # 32, expanded to the same width)
    cfg.MODEL.TOPFORMER.SEMANTICS_INPUT = "pyramid"
    # Stride of the pooled tokens that the extractor gets (Table 8): 32 | 64 | 128
    cfg.MODEL.TOPFORMER.TOKEN_STRIDE = 64
    # Semantics injection (Sec. 3.3): channels M of the outputs (Table 7).
    cfg.MODEL.TOPFORMER.SIM_CHANNELS = None
    # Function of the gate: hardsigmoid (the official weights) | sigmoid (the paper's text)
    cfg.MODEL.TOPFORMER.GATE = "hardsigmoid"
    # Branches of the injection (Table 5): both | gate (alone) | info (alone)
    cfg.MODEL.TOPFORMER.INJECTION = "both"
    # "simN" is the output at stride 2^N, N from 2 to 5 (Table 3). The head takes those that
    # MODEL.SEM_SEG_HEAD.IN_FEATURES names; its logits have the finest one's stride.
    cfg.MODEL.TOPFORMER.OUT_FEATURES = ["sim3", "sim4", "sim5"]
    # Normalisation, by Detectron2's get_norm; SyncBN means BN in a single process: SyncBN | BN |
    # FrozenBN | GN (32 groups) | nnSyncBN | naiveSyncBN | naiveSyncBN_N
    cfg.MODEL.TOPFORMER.NORM = "SyncBN"

    # How the segmentation head (Sec. 3.4) joins its features (Table 6): ours (adds them) | sum (the
    # same, of features with MODEL.TOPFORMER.INJECTION "info") | concat (the paper's row has "info"
    # too)
    cfg.MODEL.SEM_SEG_HEAD.FUSION = "ours"
    # Kind of the head's fusing 1x1 convolution: True = depthwise, False = full, None = as the
    # variant has it.
    cfg.MODEL.SEM_SEG_HEAD.FUSE_DEPTHWISE = None
    # Loss of the logits, a name in SEGMENTATION_LOSS_REGISTRY of topformer_d2.modeling.
    cfg.MODEL.SEM_SEG_HEAD.LOSS = "PixelCrossEntropy"
    # Probability that a channel is dropped before the classifier, in training.
    cfg.MODEL.SEM_SEG_HEAD.DROPOUT = 0.1
    add_loss_config(cfg)

    # TopFormerClassifier, which is for pretraining: the head of pooled features. Its backbone is
    # build_topformer_trunk.
    cfg.MODEL.CLS_HEAD = CN()
    # Classes of the images; follows from DATASETS.FOLDERS.
    cfg.MODEL.CLS_HEAD.NUM_CLASSES = 1000
    # Normalisation of the head's pooled features: SyncBN | BN | FrozenBN
    cfg.MODEL.CLS_HEAD.NORM = "SyncBN"
    # Share of the truth that all classes get alike.
    cfg.MODEL.CLS_HEAD.LABEL_SMOOTHING = 0.1

    # Parts of the model that are not trained: backbone (without a detector's pyramid), bn (every
    # BatchNorm of the model) and, of a TopFormer, stem, pyramid (with its stem) and extractor.
    # A frozen part's weights stay, and it runs as in inference: BatchNorm uses and keeps its
    # statistics, and drop path drops nothing.
    cfg.MODEL.FREEZE = []

    # The networks that the paper compares with (topformer_d2.modeling.baselines).
    cfg.MODEL.BASELINE = CN()
    # Name of the backbone: for build_timm_backbone any model of timm with feature maps, for
    # build_torchvision_backbone mobilenet_v3_large, mobilenet_v3_large_reduced or
    # shufflenet_v2_x0_5, _x1_0, _x1_5, _x2_0, for build_mit_backbone mit_b0.
    cfg.MODEL.BASELINE.NAME = ""
    # Levels that the backbone gives. "resN" has stride 2^N, except in dilated networks and plain
    # ViTs; "res5" is the last level.
    cfg.MODEL.BASELINE.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Stride of the last level: 32 | 16 | 8 (dilated)
    cfg.MODEL.BASELINE.OUTPUT_STRIDE = 32
    # Normalisation of the backbone: SyncBN (where there are several processes) | BN
    cfg.MODEL.BASELINE.NORM = "SyncBN"
    # Download the library's ImageNet weights.
    cfg.MODEL.BASELINE.PRETRAINED = False
    # The backbone below the FPN of build_baseline_fpn_backbone and of its RetinaNet form:
    # build_timm_backbone | build_torchvision_backbone | build_mit_backbone
    cfg.MODEL.FPN.BOTTOM_UP = "build_timm_backbone"
    # DeepLabV3+: channels that the finer feature is reduced to.
    cfg.MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS = [48]
    # DeepLabV3+: dilations of the ASPP module.
    cfg.MODEL.SEM_SEG_HEAD.ASPP_DILATIONS = [6, 12, 18]

    # Models with a segmentation head and a detector.
    cfg.MODEL.MULTITASK = CN()
    # The detector: RetinaNet (Detectron2's head) | LiteRetinaNet
    cfg.MODEL.MULTITASK.DETECTOR = "RetinaNet"
    # Factor of the detector's losses; MODEL.SEM_SEG_HEAD.LOSS_WEIGHT is the segmentation's.
    cfg.MODEL.MULTITASK.INSTANCE_LOSS_WEIGHT = 1.0
    # Learn a further factor for each loss from its uncertainty (Kendall et al., CVPR 2018).
    cfg.MODEL.MULTITASK.UNCERTAINTY_WEIGHTING = False

    # The user's own datasets by name, for TRAIN and TEST. For a classifier: CLASS_FOLDERS, a folder
    # with a folder of images for each class (docs/pretraining.md), and CLASSES where some are
    # missing. For all others: IMAGES (folder) with LABELS (pixels),
    # BOXES (objects) or both, each a file or a folder in any format, and where they are needed
    # CLASSES (text file or list of names), FORMAT, LABEL_MAP, IGNORE, LIST, SHARE, GROUP and
    # SPLIT_SEED: see docs/labels.md. Relative paths start at the working directory. NUM_CLASSES
    # follows.
    cfg.DATASETS.FOLDERS = CN(new_allowed=True)

    # Class names of the boxes, in the order of their indices. get_config and load_config write them
    # here, so that a saved config has the names where the data is absent: Detectron2's metadata of
    # a dataset that has no names gets these when a model is built.
    cfg.DATASETS.THING_CLASSES = []
    # Class names of the pixels, written and used as DATASETS.THING_CLASSES are.
    cfg.DATASETS.STUFF_CLASSES = []
    # Class names of whole images, likewise.
    cfg.DATASETS.IMAGE_CLASSES = []

    # One number for each dataset of TRAIN: its share of the training images is in proportion to it,
    # whatever its size. Empty = every image comes equally often.
    cfg.DATASETS.TRAIN_WEIGHTS = []

    add_input_config(cfg)

    # The optimizer: ADAMW | SGD
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Learning rate of everything outside the backbone, as a multiple of BASE_LR.
    cfg.SOLVER.HEAD_LR_FACTOR = 1.0
    # WarmupPolyLR stands in for LR_SCHEDULER_NAME where that is WarmupCosineLR, the nearest that
    # Detectron2's own trainers know; "" = LR_SCHEDULER_NAME as it is. A config file or a command
    # that names LR_SCHEDULER_NAME alone gets what it names; that takes WarmupPolyLR too.
    cfg.SOLVER.SCHEDULE = ""
    # WarmupPolyLR: (1 - i / MAX_ITER) ** power, times the warm-up factor.
    cfg.SOLVER.POLY_LR_POWER = 1.0
    # The length of the training in epochs, from which MAX_ITER follows by the number of training
    # images and IMS_PER_BATCH; WARMUP_ITERS and STEPS keep their share of it, and periods stay. 0 =
    # MAX_ITER as it is. A file or a command that names MAX_ITER alone gets what it names.
    cfg.SOLVER.EPOCHS = 0
    # Time after which training saves a checkpoint and stops as after Ctrl-C, with exit status 124:
    # '90m', '1h30m', '2d'. It is counted from when the model is built, anew in a run that is
    # resumed. An evaluation that has begun is not cut short. None = no limit.
    cfg.SOLVER.MAX_TIME = None
    # Of several processes: the time for which they wait for one that does not answer, such as one
    # that hangs or whose machine is gone, before the run ends: '30m', '90s'. It has to be longer
    # than what one process does alone while the others wait: a checkpoint, and the end of an
    # evaluation.
    cfg.SOLVER.PROCESS_TIMEOUT = "30m"
    # The batch that the other numbers are meant for. With another IMS_PER_BATCH the rate is
    # multiplied by IMS_PER_BATCH / REFERENCE_BATCH, and iterations, warm-up, steps and the periods
    # of checkpoints and evaluation are divided by it. 0 = nothing is changed. (Detectron2's
    # REFERENCE_WORLD_SIZE, which sets the batch by the number of processes, works too.)
    cfg.SOLVER.REFERENCE_BATCH = 0
    # Gradient accumulation. Each batch of IMS_PER_BATCH images is split into this many equal parts.
    # The parts run one after the other, their gradients are added, and the optimizer steps once.
    # This takes the memory of one part. Two things differ from running the batch at once: BatchNorm
    # takes its statistics of one part, and a loss that is divided by a varying number (of objects,
    # or of pixels without INPUT.CROP) is divided by that of its part.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Average the weights over the iterations, w = decay w + (1 - decay) new, and BatchNorm's
    # statistics with them; the average is what is evaluated and saved. At iteration i the decay is
    # this or (1 + i) / (10 + i), whichever is less. 0 = off. It is of an iteration, whatever the
    # batch: REFERENCE_BATCH does not scale it.
    cfg.SOLVER.EMA_DECAY = 0.0

    # Keep the model with the highest mean of these metrics, such as sem_seg/mIoU and bbox/AP, over
    # the evaluations of TEST.EVAL_PERIOD, as model_best.pth; empty = do not.
    cfg.TEST.BEST_METRICS = []
    # End the training after as many evaluations of TEST.EVAL_PERIOD in which the mean of
    # TEST.BEST_METRICS was no better than the best before them. The last model is model_final.pth,
    # and the best is in model_best.pth. 0 = train to MAX_ITER.
    cfg.TEST.PATIENCE = 0
    # With Detectron2's TEST.AUG.ENABLED segmentation is evaluated a second time, as sem_seg_TTA: by
    # the mean of the probabilities at several sizes, each also flipped with TEST.AUG.FLIP. These
    # are the short sides in pixels; the long side's limit grows with them from MAX_SIZE_TEST, up
    # to TEST.AUG.MAX_SIZE. Empty = INPUT.MIN_SIZE_TEST times 0.5, 0.75, ... 1.75.
    cfg.TEST.AUG.MIN_SIZES = ()
    # Where a training's losses, rates and metrics go, beside the log and OUTPUT_DIR/metrics.json:
    # tensorboard | mlflow | wandb. The last two are the extra "loggers" and also get the config;
    # their own environment variables, as MLFLOW_TRACKING_URI and WANDB_MODE, say where runs go.
    cfg.LOGGERS = ["tensorboard"]

    cfg.register_deprecated_key("TEST.SEM_SEG_RLE")  # in configs that earlier versions dumped

    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"


def complete_config(cfg: CN) -> CN:
    """The config itself, or where it lacks keys of add_topformer_config a copy that has them.

    Other programs merge a config file into Detectron2's defaults alone: what the file does not name
    is then absent, and has its default. No key that is there is changed.
    """
    if not _lacks(cfg, _toolkit_keys()):
        return cfg
    completed = cfg.clone()
    completed.defrost()
    _fill(completed, _toolkit_keys())
    if cfg.is_frozen():
        completed.freeze()
    return completed


@functools.cache
def _toolkit_keys() -> CN:
    """The keys that add_topformer_config adds to Detectron2's, with their defaults."""
    plain, ours = get_cfg(), get_cfg()
    add_topformer_config(ours)
    return _without(ours, plain)


def _without(cfg: CN, other: CN) -> CN:
    kept = CN()
    for key, value in cfg.items():
        if key not in other:
            kept[key] = value
        elif isinstance(value, CN) and (rest := _without(value, other[key])):
            kept[key] = rest
    return kept


def _lacks(cfg: CN, keys: CN) -> bool:
    return any(
        key not in cfg
        or (isinstance(value, CN) and isinstance(cfg[key], CN) and _lacks(cfg[key], value))
        for key, value in keys.items()
    )


def _fill(cfg: CN, keys: CN) -> None:
    for key, value in keys.items():
        if key not in cfg:
            cfg[key] = copy.deepcopy(value)
        elif isinstance(value, CN) and isinstance(cfg[key], CN):
            _fill(cfg[key], value)
