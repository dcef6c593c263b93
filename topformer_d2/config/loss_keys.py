"""The config keys of the losses."""

from __future__ import annotations

from detectron2.config import CfgNode as CN


def add_loss_config(cfg: CN) -> None:
    """Add MODEL.SEM_SEG_LOSS, MODEL.TEACHER, and what RetinaNet lacks; the defaults are off."""
    # What the loss PixelCrossEntropy has beyond the cross entropy, for rare classes and small
    # things. MODEL.SEM_SEG_HEAD.LOSS_WEIGHT is a factor of all of it.
    cfg.MODEL.SEM_SEG_LOSS = CN()
    # A weight for each class; empty = 1.0 for each, or those of CLASS_WEIGHTS_FROM.
    cfg.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS = []
    # What CLASS_WEIGHTS are computed by from the pixels of DATASETS.TRAIN, where they are empty:
    # inverse_log (ENet) | effective_number (Cui et al., 2019) | median_frequency (SegNet) | ""
    cfg.MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM = ""
    # Label smoothing: this share of each label is spread over all classes.
    cfg.MODEL.SEM_SEG_LOSS.SMOOTHING = 0.0
    # Focal loss: a pixel's loss times (1 - p) ** FOCAL_GAMMA, p the probability of its class.
    cfg.MODEL.SEM_SEG_LOSS.FOCAL_GAMMA = 0.0
    # Hard pixels: this share of a batch's labelled pixels has a loss, those whose class has the
    # lowest probability. 1.0 = all.
    cfg.MODEL.SEM_SEG_LOSS.HARD_SHARE = 1.0
    # Hard pixels: those whose class has a lower probability have a loss. 0.0 = all.
    cfg.MODEL.SEM_SEG_LOSS.HARD_THRESHOLD = 0.0
    # Hard pixels: at least this share of the labelled ones has a loss, whatever HARD_THRESHOLD.
    cfg.MODEL.SEM_SEG_LOSS.HARD_MINIMUM = 0.05
    # Weight of pixels near a border between two classes.
    cfg.MODEL.SEM_SEG_LOSS.EDGE_WEIGHT = 1.0
    # How near: a pixel of another class is at most as many rows and columns away.
    cfg.MODEL.SEM_SEG_LOSS.EDGE_WIDTH = 3
    # Weight of a Dice loss ("loss_dice"), computed at the logits' resolution. 0.0 = off.
    cfg.MODEL.SEM_SEG_LOSS.DICE_WEIGHT = 0.0
    # Weight of a Lovasz-softmax loss ("loss_lovasz"), computed at the logits' resolution. 0.0 =
    # off.
    cfg.MODEL.SEM_SEG_LOSS.LOVASZ_WEIGHT = 0.0
    # Weight of the auxiliary loss ("loss_auxiliary"), in training alone: a 1x1 classifier on each
    # of the head's features but the finest. Of TopFormerSegmentationHead; 0.0 = off.
    cfg.MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT = 0.0

    # Quality focal loss (Li et al., 2020): a RetinaNet's score is trained to be the IoU of its box.
    # FOCAL_LOSS_GAMMA is its exponent, and FOCAL_LOSS_ALPHA has no effect.
    cfg.MODEL.RETINANET.QUALITY_TARGETS = False

    # Distillation: a trained model teaches this one while it trains, by its config and its weights.
    cfg.MODEL.TEACHER = CN()
    # The teacher of the pixels; it has the same classes.
    cfg.MODEL.TEACHER.PIXELS = CN()
    # Config file, or name of a shipped config. "" = no teacher.
    cfg.MODEL.TEACHER.PIXELS.CONFIG = ""
    # File with all of its weights. "" = MODEL.WEIGHTS of its config.
    cfg.MODEL.TEACHER.PIXELS.WEIGHTS = ""
    # Weight of the divergence of the softened logits ("loss_distill_sem_seg"). 0.0 = off.
    cfg.MODEL.TEACHER.PIXELS.LOGITS_WEIGHT = 1.0
    # The logits of both are divided by this before the softmax.
    cfg.MODEL.TEACHER.PIXELS.TEMPERATURE = 2.0
    # Weight of the distance of the segmentation heads' features, scaled to the norm 1
    # ("loss_distill_features"). 0.0 = off.
    cfg.MODEL.TEACHER.PIXELS.FEATURES_WEIGHT = 0.0
    # The teacher of the boxes; it has the same classes and the same anchors. A joint model may be
    # named here and in PIXELS.
    cfg.MODEL.TEACHER.BOXES = CN()
    # Config file, or name of a shipped config. "" = no teacher.
    cfg.MODEL.TEACHER.BOXES.CONFIG = ""
    # File with all of its weights. "" = MODEL.WEIGHTS of its config.
    cfg.MODEL.TEACHER.BOXES.WEIGHTS = ""
    # Weight of the quality focal loss of its scores ("loss_distill_scores"). 0.0 = off.
    cfg.MODEL.TEACHER.BOXES.SCORES_WEIGHT = 1.0
    # Weight of the distance of the boxes that it is sure of ("loss_distill_boxes"). 0.0 = off.
    cfg.MODEL.TEACHER.BOXES.BOXES_WEIGHT = 1.0
    # Weight of the distance of the detection heads' features, scaled to the norm 1
    # ("loss_distill_levels"). 0.0 = off.
    cfg.MODEL.TEACHER.BOXES.FEATURES_WEIGHT = 0.0
    # The teacher of a classifier; it has the same classes.
    cfg.MODEL.TEACHER.IMAGES = CN()
    # Config file, or name of a shipped config, such as cls_timm. "" = no teacher.
    cfg.MODEL.TEACHER.IMAGES.CONFIG = ""
    # File with all of its weights. "" = MODEL.WEIGHTS of its config, or timm's where that says so
    # (MODEL.BASELINE.PRETRAINED).
    cfg.MODEL.TEACHER.IMAGES.WEIGHTS = ""
    # Weight of the divergence of the softened logits ("loss_distill_cls"). 0.0 = off.
    cfg.MODEL.TEACHER.IMAGES.LOGITS_WEIGHT = 1.0
    # The logits of both are divided by this before the softmax.
    cfg.MODEL.TEACHER.IMAGES.TEMPERATURE = 2.0


def changed_loss_keys(cfg: CN) -> list[str]:
    """The keys of MODEL.SEM_SEG_LOSS, without that, whose values are not the defaults."""
    default = CN({"MODEL": {"RETINANET": {}}})
    add_loss_config(default)
    defaults = default.MODEL.SEM_SEG_LOSS
    return [key for key, value in cfg.MODEL.SEM_SEG_LOSS.items() if value != defaults[key]]
