"""Charts by what is in their figures and files, and what the engine does with them."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from tests.helpers import REPOSITORY
from topformer_d2.engine import Trainer
from topformer_d2.evaluation.confusion import metrics_from_confusion
from topformer_d2.visualization import charts

MATRIX = np.array([[60, 20, 0, 20], [1, 199, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
NAMES = ["road", "sky", "tram", "a longer name"]


def write_evaluation(folder, matrix, names):
    saved = {"metrics": metrics_from_confusion(matrix, names), "confusion": matrix.tolist()}
    (folder / "sem_seg_evaluation.json").write_text(json.dumps(saved))


def text_boxes(figure):
    """Where each text that is drawn lies, in pixels."""
    figure.canvas.draw()
    labels = [t for axes in figure.axes for t in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts), *labels]
    return {t.get_text(): t.get_window_extent() for t in texts if t.get_text() and t.get_visible()}


def test_confusion_is_normalised_by_truth():
    axes = charts.confusion_chart(MATRIX, NAMES).axes[0]
    shown = axes.images[0].get_array().filled(np.nan)
    expected = [[60, 20, 0, 20], [0.5, 99.5, 0, 0], [np.nan] * 4, [np.nan] * 4]
    assert np.allclose(shown, expected, equal_nan=True)
    # Row 1 has 1 of 200 and 199 of 200; zeros and rows without truth have no number.
    numbers = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert numbers == {
        ((0, 0), "60"), ((1, 0), "20"), ((3, 0), "20"), ((0, 1), "0"), ((1, 1), "100")
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES


@pytest.mark.parametrize("num_classes", [2, 11, 31, pytest.param(171, marks=pytest.mark.slow)])
def test_names_are_apart_and_within_the_picture(num_classes):
    rng = np.random.default_rng(0)
    names = [f"class-{i:03d}" + "-wide" * (i % 3) for i in range(num_classes)]
    matrix = rng.integers(0, 1000, (num_classes, num_classes))
    iou = dict(zip(names, rng.uniform(0, 100, num_classes), strict=True))
    for figure in (charts.confusion_chart(matrix, names), charts.iou_chart(iou, 50.0)):
        charts.FigureCanvasAgg(figure)
        boxes = text_boxes(figure)
        assert set(names) <= boxes.keys()
        whole = figure.bbox
        for text in (*names, figure.texts[0].get_text()):
            box = boxes[text]
            inside = (box.x0 >= 0, box.y0 >= 0, box.x1 <= whole.x1, box.y1 <= whole.y1)
            assert all(inside), (text, box)
        axes = figure.axes[0]
        rows = [label.get_window_extent() for label in axes.get_yticklabels()]
        rows = sorted((row.y0, row.y1) for row in rows)
        assert all(below[1] <= above[0] + 0.5 for below, above in pairwise(rows))
        assert max(row[1] - row[0] for row in rows) >= 7  # pixels


def test_a_thousand_classes_are_numbered_in_a_picture_of_bounded_size():
    matrix = np.eye(1000, dtype=int)
    figure = charts.confusion_chart(matrix, [f"class {i}" for i in range(1000)])
    axes = figure.axes[0]
    assert max(figure.get_size_inches()) < 12
    assert [label.get_text() for label in axes.get_yticklabels()] == [*map(str, range(0, 1000, 50))]
    assert axes.images[0].get_array().shape == (1000, 1000)
    assert len(axes.lines) == 0 and len(axes.texts) == 0


def test_iou_bars_are_sorted_and_the_absent_class_is_last():
    iou = {"b": 20.0, "gone": float("nan"), "a": 100.0, "zero": 0.0}
    axes = charts.iou_chart(iou, 40.0).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "zero", "gone"]
    assert [bar.get_width() for bar in axes.patches] == [100, 20, 0, 0]
    written = [text.get_text() for text in axes.texts]
    assert written == ["100.0", "20.0", "0.0", "neither in truth nor predicted"]
    assert list(axes.lines[0].get_xdata()) == [40, 40]
    columns = charts.iou_chart({str(i): float(i) for i in range(100)}, 1.0).axes
    assert [len(axes.patches) for axes in columns] == [50, 50]
    assert [axes.patches[0].get_width() for axes in columns] == [99, 49]


def test_curves_are_those_of_the_latest_run():
    lines = [json.dumps({"iteration": i, "total_loss": 10.0 + i}) for i in (19, 39, 59)]
    lines += [json.dumps({"iteration": 59, "sem_seg/mIoU": 7.0})]
    # Resumed from a checkpoint after iteration 39; the last line was cut off.
    lines += [json.dumps({"iteration": i, "total_loss": 1.0 + i}) for i in (39, 59)]
    lines += ['{"iteration": 79, "tot', '{"total_loss": 3.0}', "[1]", "7", '{"iteration": null}']
    assert charts.read_curves(lines) == {"total_loss": [(19, 29.0), (39, 40.0), (59, 60.0)]}


def test_curves_chart():
    points = [(i, 100 / (i + 1)) for i in range(0, 100)]
    curves = {
        **{"total_loss": points, "loss_cls": points, "lr": points, "num_pos_anchors": points},
        **{
            "bbox/AP": [(50, 1.0), (99, 2.0)],
            "bbox/AP50": [(50, 3.0)],
            "d/sem_seg/mIoU": [(99, 5)],
        },
    }
    losses, metrics = charts.curves_chart(curves).axes
    assert [text.get_text() for text in losses.get_legend().texts] == ["total_loss", "loss_cls"]
    assert np.array_equal(losses.lines[0].get_xydata(), points)
    smooth = losses.lines[1].get_ydata()
    # Two on either side, but for the ends.
    values = np.array(points)[:, 1]
    assert smooth[[0, 1, 50]] == pytest.approx([values[0], values[:3].mean(), values[48:53].mean()])
    assert losses.get_ylim()[1] < 60 < values[0]  # the first loss does not set the scale
    texts = [text.get_text() for text in metrics.get_legend().texts]
    assert texts == ["bbox/AP, last 2.00", "d/sem_seg/mIoU, last 5.00"]
    assert len(charts.curves_chart({"total_loss": points}).axes) == 1


@pytest.mark.slow
def test_files_are_pictures_without_a_display(tmp_path):
    """In a process of its own, whose MPLBACKEND asks for a window."""
    write_evaluation(tmp_path, MATRIX, NAMES)
    (tmp_path / "metrics.json").write_text('{"iteration": 19, "total_loss": 1.0}\n')
    code = "import sys; from topformer_d2.visualization import charts as c; "
    code += "c.draw_evaluation(sys.argv[1]); c.draw_curves(sys.argv[1]); "
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    environment = {**os.environ, "MPLBACKEND": "TkAgg", "PYTHONPATH": str(REPOSITORY)}
    environment.pop("DISPLAY", None)
    subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=True)
    pictures = {
        name: Image.open(tmp_path / f"{name}.png") for name in ("confusion", "iou", "curves")
    }
    assert pictures["curves"].size == (900, 400)
    colors = {color for _, color in pictures["iou"].convert("RGB").getcolors(1 << 16)}
    assert tuple(round(255 * c) for c in to_rgba("tab:blue")[:3]) in colors
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", *[".png"] * 3]


@pytest.mark.usefixtures("with_charts")
def test_training_draws_and_a_failure_to_draw_loses_nothing(
    tiny_config, tmp_path, monkeypatch, caplog
):
    def train(name):
        output = tmp_path / name
        trainer = Trainer(tiny_config("SOLVER.MAX_ITER", "2", "OUTPUT_DIR", str(output)))
        trainer.train()
        folder = output / "inference/synthetic_sem_seg_val"
        drawn = [output / "curves.png", folder / "confusion.png", folder / "iou.png"]
        return trainer, output, folder, [path.is_file() for path in drawn]

    trainer, *_, drawn = train("drawn")
    assert drawn == [True] * 3

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(charts, "save_chart", fail)
    undrawn, output, folder, drawn = train("undrawn")
    assert drawn == [False] * 3
    assert undrawn._last_eval_results == trainer._last_eval_results
    assert f"no chart was drawn in {folder}: MemoryError: no room" in caplog.text
    assert f"no chart was drawn in {output}: MemoryError: no room" in caplog.text
    assert (output / "model_final.pth").is_file()
