"""The config keys of the losses."""

from __future__ import annotations

from detectron2.config import CfgNode as CN


def add_loss_config(cfg: CN) -> None:
    """Add MODEL.SEM_SEG_LOSS, and what losses of RetinaNet lack; the defaults change nothing."""
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
