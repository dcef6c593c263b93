"""Where evaluations are written."""

from __future__ import annotations

import os

from detectron2.config import CfgNode


def inference_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where the evaluation of a dataset is written."""
    return os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)


def tta_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where evaluate_with_tta writes what it finds on a dataset."""
    return os.path.join(cfg.OUTPUT_DIR, "inference_TTA", dataset_name)
