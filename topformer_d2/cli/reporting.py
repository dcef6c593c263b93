"""An evaluation that shows what the model gets wrong, for `topformer eval --report`."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ..engine import Trainer
from ..engine.trainer import inference_folder
from ..errors import InputError, shown
from ..evaluation import build_evaluator
from ..files import check_output


def check_report(folder: str) -> None:
    """Find out before the work whether the report can be written; InputError where not."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"`report` {folder} is a file: name a folder")
    check_output(os.path.join(folder, "report.html"), "report")


def test_and_report(cfg: CfgNode, model: nn.Module, folder: str) -> dict:
    """Trainer.test on DATASETS.TEST, and a report of each dataset.

    Of several datasets, each has a folder of its name in `folder`.
    """
    # They need matplotlib, which takes a second that other evaluations do not have to wait.
    from ..analysis import mistakes
    from ..visualization import Painter

    names = list(cfg.DATASETS.TEST)
    evaluators = [
        build_evaluator(cfg, name, inference_folder(cfg, name), mistakes=True) for name in names
    ]
    results = Trainer.test(cfg, model, evaluators)
    if not comm.is_main_process():
        return results
    weights = cfg.MODEL.WEIGHTS
    curves = mistakes.training_curves(os.path.dirname(weights) or ".")
    for name, evaluator in zip(names, evaluators, strict=True):
        found = results if len(names) == 1 else results[name]
        report, rows, suspects = mistakes.describe_mistakes(
            evaluator, found, name, Painter(cfg, name)
        )
        title = os.path.basename(os.path.normpath(cfg.OUTPUT_DIR)) or "evaluation"
        report |= {"title": title, "weights": weights, "curves": curves}
        target = folder if len(names) == 1 else os.path.join(folder, name)
        mistakes.write_report(target, report, rows, suspects)
        print(f"wrote {shown(os.path.join(target, 'report.html'))}")
    return results
