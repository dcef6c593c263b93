"""Charts of an evaluation and of a training run: figures without a display, saved as PNG."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from ..files import write_beside

# Up to this many classes the cells of a confusion matrix have room for their numbers.
_MOST_NUMBERED = 30
# Up to this many its rows have their names; drawing those of a thousand takes longer than all else.
_MOST_NAMED = 200
_BARS_IN_COLUMN = 60


def draw_evaluation(folder: str) -> None:
    """Write confusion.png and iou.png beside the sem_seg_evaluation.json of `folder`."""
    with PathManager.open(os.path.join(folder, "sem_seg_evaluation.json"), "r") as f:
        saved = json.load(f)
    metrics = {k: math.nan if v is None else v for k, v in saved["metrics"].items()}
    iou = {
        key.removeprefix("IoU-"): value for key, value in metrics.items() if key.startswith("IoU-")
    }
    confusion = confusion_chart(np.array(saved["confusion"]), list(iou))
    save_chart(confusion, os.path.join(folder, "confusion.png"))
    save_chart(iou_chart(iou, metrics["mIoU"]), os.path.join(folder, "iou.png"))


def draw_curves(folder: str) -> None:
    """Write curves.png beside the metrics.json that training wrote in `folder`."""
    with PathManager.open(os.path.join(folder, "metrics.json"), "r") as f:
        figure = curves_chart(read_curves(f))
    save_chart(figure, os.path.join(folder, "curves.png"))


def save_chart(figure: Figure, path: str) -> None:
    """Write a figure as PNG; no display is used."""
    FigureCanvasAgg(figure)  # and not what the environment's MPLBACKEND names
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    write_beside(path, png.getvalue())


def confusion_chart(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """The confusion matrix in percent: truth in rows, which sum to 100%; prediction in columns.

    Colours follow the square root of the share, so that a confusion of a few percent is seen. A
    class without truth has a grey row. More than 200 classes are numbered and not named.

    Args:
        matrix: (K, K) pixels by truth (row) and prediction (column).
        class_names: K names.
    """
    truth = matrix.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        percent = np.where(truth > 0, 100 * matrix / truth, np.nan)
    numbered, named = len(matrix) <= _MOST_NUMBERED, len(matrix) <= _MOST_NAMED
    # Inches and points; the side of a matrix of hundreds of classes is bounded, as memory is.
    cell = 0.42 if numbered else 0.14 if named else 10 / len(matrix)
    font = 9 if numbered else 7
    ticks = range(0, len(matrix), 1 if named else 50)
    labels = [class_names[i] if named else str(i) for i in ticks]
    side, names = max(3.0, cell * len(matrix)), _text_width(labels, font) + 0.1
    left, right, top, bottom = names + 0.3, 0.1 if numbered else 0.9, names + 0.7, 0.1
    figure = Figure(figsize=(left + side + right, top + side + bottom))
    axes = figure.add_axes(_inches(figure, left, bottom, side, side))
    cmap = colormaps["Blues"].with_extremes(bad="0.85")
    picture = axes.imshow(percent, cmap=cmap, norm=PowerNorm(0.5, 0, 100), aspect="auto")
    axes.set_xticks(ticks, labels, rotation=90, fontsize=font)
    axes.set_yticks(ticks, labels, fontsize=font)
    axes.tick_params(length=0, bottom=False, top=True, labelbottom=False, labeltop=True)
    axes.set_ylabel("truth" if named else "truth, by the class's number", fontsize=11)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("prediction", fontsize=11)
    _write_title(figure, "Percent of each class's pixels by prediction")
    if numbered:
        _write_numbers(axes, percent, font)
    else:
        place = _inches(figure, left + side + 0.2, bottom + side - 4, 0.2, 4)
        figure.colorbar(picture, cax=figure.add_axes(place))
    for edge in np.arange(1, len(matrix) if named else 1) - 0.5:
        axes.axhline(edge, color="0.9", linewidth=0.5)
        axes.axvline(edge, color="0.9", linewidth=0.5)
    return figure


def _write_numbers(axes: Axes, percent: np.ndarray, font: float) -> None:
    """Whole percents into the cells; nothing where they round to 0."""
    for row, column in zip(*np.nonzero(np.nan_to_num(percent) >= 0.5), strict=True):
        value = percent[row, column]
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": font}
        axes.text(column, row, f"{value:.0f}", color="white" if value > 40 else "black", **style)


def iou_chart(iou: Mapping[str, float], mean: float) -> Figure:
    """IoU by class as bars, the highest first, in columns of up to 60; the mean as a line.

    Args:
        iou: percent by class; NaN for one that neither truth nor prediction has.
        mean: percent.
    """
    known = {name: value for name, value in iou.items() if not math.isnan(value)}
    order = sorted(known, key=known.get, reverse=True) + [n for n in iou if n not in known]
    columns = math.ceil(len(order) / _BARS_IN_COLUMN)
    rows = math.ceil(len(order) / columns)
    names_width, bars_width = _text_width(order, 9) + 0.2, 3.0  # inches
    figure = Figure(figsize=(columns * (names_width + bars_width), 0.8 + 0.19 * rows))
    _write_title(figure, f"IoU by class in percent, mean {mean:.2f}")
    for c in range(columns):
        left = c * (names_width + bars_width) + names_width
        axes = figure.add_axes(_inches(figure, left, 0.3, bars_width - 0.1, 0.19 * rows))
        names = order[c * rows : (c + 1) * rows]
        values = [known.get(name, 0.0) for name in names]
        axes.axvline(mean, color="tab:red", linewidth=1, linestyle="--", zorder=0)
        axes.barh(range(len(names)), values, color="tab:blue", height=0.75)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_ylim(rows - 0.5, -0.5)  # the first on top, bars as thick in every column
        axes.set_xlim(0, 115)  # with room for the number after a bar of 100
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        for place, (name, value) in enumerate(zip(names, values, strict=True)):
            text = f"{value:.1f}" if name in known else "neither in truth nor predicted"
            axes.text(value + 1.5, place, text, va="center", fontsize=8, bbox=box)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure


def read_curves(lines: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
    """{name: [(iteration, value), ...]} of the lines of a metrics.json.

    A run that was resumed, or begun again in the same folder, replaces what was written from its
    first iteration on. A line that a killed run left unfinished is passed over, and so is one that
    tells no iteration.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    last = -1
    for line in lines:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        iteration = values.pop("iteration", None) if isinstance(values, dict) else None
        if not isinstance(iteration, int):
            continue
        if iteration <= last:
            for points in curves.values():
                while points and points[-1][0] >= iteration:
                    points.pop()
        last = iteration
        for name, value in values.items():
            curves.setdefault(name, []).append((iteration, value))
    return {name: points for name, points in curves.items() if points}


def curves_chart(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """The losses, pale as logged and dark as a running mean, above the mIoU and the AP.

    Args:
        curves: as read_curves gives them; of its metrics those named mIoU or AP are drawn.
    """
    losses = {k: v for k, v in curves.items() if k == "total_loss" or k.startswith("loss_")}
    metrics = {k: v for k, v in curves.items() if k.split("/")[-1] in ("mIoU", "AP")}
    figure = Figure(figsize=(9, 7 if metrics else 4), layout="constrained")
    panels = figure.subplots(1 + bool(metrics), 1, sharex=True, squeeze=False)[:, 0]
    _draw_losses(panels[0], losses)
    for name, points in metrics.items():
        iterations, values = np.array(points, np.float64).T
        label = f"{name}, last {values[-1]:.2f}"
        panels[-1].plot(iterations, values, marker="o", markersize=4, label=label)
    if metrics:
        panels[-1].set_ylabel("percent")
    panels[-1].set_xlabel("iteration")
    for axes in panels:
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    return figure


def _draw_losses(axes: Axes, losses: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    lowest, highest = 0.0, 0.0
    for name in sorted(losses, reverse=True):  # the total first
        iterations, values = np.array(losses[name], np.float64).T
        (line,) = axes.plot(iterations, values, alpha=0.25, linewidth=1)
        smooth = _running_mean(values, len(values) // 50)
        axes.plot(iterations, smooth, color=line.get_color(), label=name)
        # The first losses are far above the rest and would flatten it.
        lowest = min(lowest, float(np.nanmin(values)))
        highest = max(highest, float(np.nanquantile(values, 0.98)))
    if highest > lowest:
        axes.set_ylim(1.1 * lowest, 1.1 * highest)
    axes.set_ylabel("loss")


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Means over `reach` values on either side of each; near the ends over as many as there are."""
    place = np.arange(len(values))
    reaches = np.minimum(reach, np.minimum(place, place[::-1]))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[place + reaches + 1] - total[place - reaches]) / (2 * reaches + 1)


def _write_title(figure: Figure, text: str) -> None:
    """At the figure's upper left corner."""
    left, top, _, _ = _inches(figure, 0.1, figure.get_figheight() - 0.1, 0, 0)
    figure.text(left, top, text, va="top", fontsize=11)


def _inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> tuple:
    """A place in inches, as the shares of the figure that add_axes takes."""
    across, up = figure.get_size_inches()
    return left / across, bottom / up, width / across, height / up


def _text_width(texts: Sequence[str], size: float) -> float:
    """Inches that the widest of some texts of `size` points takes."""
    longest = sorted(texts, key=len)[-5:]  # measuring them all takes longer than drawing them
    return max(TextPath((0, 0), text, size=size).get_extents().width for text in longest) / 72
