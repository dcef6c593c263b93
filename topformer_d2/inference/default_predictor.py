"""Detectron2's DefaultPredictor set up for the official protocol."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor

from ..checkpoint import SafeCheckpointer
from ..config import check_parts
from ..data import build_test_augmentation


def build_predictor(cfg: CfgNode, weights: str) -> DefaultPredictor:
    """A DefaultPredictor that resizes as evaluation does and reads `weights` safely.

    Args:
        cfg: a config with the toolkit's keys; its MODEL.WEIGHTS is not used.
        weights: .pth (no pickled code) or .safetensors file.

    Raises:
        InputError: the weights cannot be read or do not fit, or the config names an unknown part.
    """
    check_parts(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    predictor = DefaultPredictor(cfg)
    SafeCheckpointer(predictor.model, require_all=True).load(weights)
    predictor.aug = build_test_augmentation(cfg)
    return predictor
