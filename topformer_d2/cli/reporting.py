"""An evaluation that shows what the model gets wrong, for `topformer eval --report`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn

from ..engine import Trainer
from ..errors import InputError, shown
from ..evaluation import build_evaluator
from ..evaluation.folders import inference_folder
from ..evaluation.predictions import find_label_mistakes
from ..files import check_output
from ..inference import Predictor
from ..tasks import PIXELS

if TYPE_CHECKING:
    from ..visualization import Painter


def check_report(folder: str) -> None:
    """Find out before the work whether the report can be written; InputError where not."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"`report` {folder} is a file: name a folder")
    check_output(os.path.join(folder, "report.html"), "report")


def test_and_report(cfg: CfgNode, model: nn.Module, folder: str) -> dict:
    """Trainer.test on DATASETS.TEST, and a report of each dataset.

    Of several datasets, each has a folder of its name in `folder`.
    """
    from ..visualization import Painter

    names = list(cfg.DATASETS.TEST)
    evaluators = [
        build_evaluator(cfg, name, inference_folder(cfg, name), mistakes=True) for name in names
    ]
    results = Trainer.test(cfg, model, evaluators)
    if not comm.is_main_process():
        return results
    title = os.path.basename(os.path.normpath(cfg.OUTPUT_DIR)) or "evaluation"
    for name, evaluator in zip(names, evaluators, strict=True):
        found = results if len(names) == 1 else results[name]
        target = report_folder(folder, name, names)
        write_mistakes(target, evaluator, found, name, Painter(cfg, name), title, cfg.MODEL.WEIGHTS)
    return results


def evaluate_and_report(
    predictor: Predictor, model: str, name: str, folder: str
) -> dict[str, dict[str, float]]:
    """Evaluate the label maps of an exported file, and write a report of them.

    Args:
        predictor: of the file `model`.
        name: of the dataset.
        folder: of the report.

    Returns:
        the metrics of the pixels, as evaluate_tasks gives them.
    """
    from ..visualization import Painter

    evaluator, figures = find_label_mistakes(predictor, name)
    found = {PIXELS.metrics: figures}
    title = os.path.basename(model)
    write_mistakes(folder, evaluator, found, name, Painter(predictor.info), title, model)
    return found


def report_folder(folder: str, name: str, names: Sequence[str]) -> str:
    """Where the report of a dataset goes: of several, each has a folder of its name."""
    return folder if len(names) == 1 else os.path.join(folder, name)


def write_mistakes(
    folder: str,
    evaluator: DatasetEvaluator,
    results: Mapping[str, Mapping[str, float]],
    name: str,
    painter: Painter,
    title: str,
    weights: str,
) -> None:
    """Write the report of a dataset, with the curves of a training that lie beside `weights`."""
    # It needs matplotlib, which takes a second that other evaluations do not have to wait.
    from ..analysis import mistakes

    report, rows, suspects = mistakes.describe_mistakes(evaluator, results, name, painter)
    curves = mistakes.training_curves(os.path.dirname(weights) or ".")
    report |= {"title": title, "weights": weights, "curves": curves}
    mistakes.write_report(folder, report, rows, suspects)
    print(f"wrote {shown(os.path.join(folder, 'report.html'))}")
