"""Reports of what a model gets wrong: making, writing, reading and comparing them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils.file_io import PathManager

from ...data.images import write_image
from ...data.registered import load_records
from ...data.suspects import Suspect, write_suspects
from ...errors import InputError
from ...evaluation import BoxMistakes, PixelMistakes
from ...evaluation.box_mistakes import suspected_boxes
from ...files import read_json, write_beside, write_json
from ...tasks import BOXES, PIXELS
from ...visualization import Painter
from ...visualization.charts import read_curves
from ...visualization.report import report_page
from .boxes import describe_boxes
from .pictures import Row, worst_sheet
from .pixels import describe_pixels

# Says what a file is, and in which form.
_KEY, _FORM = "topformer_report", 1
NUM_WORST = 8


def describe_mistakes(
    evaluator: DatasetEvaluator,
    results: Mapping[str, Mapping[str, float]],
    dataset_name: str,
    painter: Painter,
) -> tuple[dict, list[Row], list[Suspect]]:
    """What evaluators of one dataset have gathered, as plain values and pictures.

    Args:
        evaluator: a PixelMistakes, a BoxMistakes or both as DatasetEvaluators, after evaluate().
        results: of the evaluation, by group.
        dataset_name: of the dataset.
        painter: in whose colours pictures are drawn.

    Returns:
        the report; the worst images' pictures; and all suspected label errors, those of both tasks
        in turn.
    """
    report: dict[str, Any] = {_KEY: _FORM, "dataset": dataset_name, "images": 0}
    rows: list[Row] = []
    suspects: list[list[Suspect]] = []
    several = isinstance(evaluator, DatasetEvaluators)
    for each in evaluator._evaluators if several else [evaluator]:
        if isinstance(each, PixelMistakes):
            files = {
                record["file_name"]: record["sem_seg_file_name"]
                for record in load_records(dataset_name)
                if PIXELS.name in record["tasks"]
            }
            part, worst = describe_pixels(each, results[PIXELS.metrics], painter, files)
            report |= {"pixels": part, "images": max(report["images"], each.num_images)}
            suspects.append(each.suspects())
        elif isinstance(each, BoxMistakes) and each.matched is not None:
            metrics = results[BOXES.metrics]
            part, worst = describe_boxes(each, metrics, painter, NUM_WORST)
            report |= {"boxes": part, "images": max(report["images"], len(each.images))}
            suspects.append(suspected_boxes(each))
        else:
            continue
        rows += worst
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*suspects))
    return report, rows, [suspect for suspect in in_turn if suspect is not None]


def write_report(
    folder: str, report: Mapping[str, Any], rows: Sequence[Row], suspects: Sequence[Suspect]
) -> None:
    """Write report.json, report.html, suspects.json and, where an image is bad, worst.png."""
    write_json(os.path.join(folder, "report.json"), report)
    write_suspects(os.path.join(folder, "suspects.json"), suspects)
    if rows:
        write_image(os.path.join(folder, "worst.png"), worst_sheet(rows)[:, :, ::-1])
    # What the file has and not what is in memory, so that both give the same page.
    write_page(os.path.join(folder, "report.html"), [folder])


def read_report(folder: str) -> dict:
    """The report.json of a folder that write_report wrote; a path to the file is taken as well.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    path = folder if folder.endswith(".json") else os.path.join(folder, "report.json")
    report = read_json(path)
    if not isinstance(report, dict) or report.get(_KEY) != _FORM:
        raise InputError(f"{path} is not what `topformer eval --report` wrote")
    return report


def write_page(path: str, folders: Sequence[str]) -> None:
    """Write the page of one or two folders that write_report wrote.

    Raises:
        InputError: as read_report; or the two have no task in common.
    """
    reports = [read_report(folder) for folder in folders]
    if not any(all(report.get(key) for report in reports) for key in ("pixels", "boxes")):
        what = " and ".join(folders)
        raise InputError(f"{what}: there is nothing to show, or nothing that both have")
    try:
        page = report_page(reports)
    except (ArithmeticError, AttributeError, KeyError, IndexError, TypeError, ValueError) as e:
        what = " or ".join(folders)
        raise InputError(f"{what} is not what `topformer eval --report` wrote: {e!r}") from e
    write_beside(path, page.encode())


def training_curves(folder: str) -> dict[str, list[tuple[int, float]]]:
    """The losses, mIoU and AP in the metrics.json of a training's folder; empty without it."""
    path = os.path.join(folder, "metrics.json")
    if not PathManager.isfile(path):
        return {}
    with PathManager.open(path, "r") as f:
        return dict(_wanted(read_curves(f).items()))


def _wanted(curves: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    for name, points in curves:
        if (
            name == "total_loss"
            or name.startswith("loss_")
            or name.split("/")[-1] in ("mIoU", "AP")
        ):
            yield name, points
