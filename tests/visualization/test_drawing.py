"""Overlays, legends and sheets, by their pixels."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from topformer_d2.data.class_table import class_styles
from topformer_d2.inference import Scene
from topformer_d2.visualization import add_legend, blend_labels, draw_boxes, make_sheet

COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def test_blend_tints_classes_and_leaves_the_ignored():
    image = np.full((2, 2, 3), 100, np.uint8)
    out = blend_labels(image, np.array([[0, 1], [2, 255]]), COLORS, opacity=0.6)
    assert out[0, 0].tolist() == [193, 40, 40]
    assert out[0, 1].tolist() == [40, 193, 40]
    assert out[1, 1].tolist() == [100, 100, 100]
    assert (image == 100).all()


def test_legend_shows_present_classes_most_pixels_first():
    picture = np.zeros((140, 50, 3), np.uint8)
    label = np.zeros((140, 50), np.uint8)
    label[:100] = 2
    out = add_legend(picture, label, ["sky", "road", "car"], COLORS)
    column = out[:, 50:]
    assert np.array_equal(out[:, :50], picture)

    def rows(color):
        return np.flatnonzero((column == color).all(-1).any(1))

    assert rows(COLORS[2]).mean() < rows(COLORS[0]).mean()
    assert not len(rows(COLORS[1]))


def test_legend_drops_what_does_not_fit():
    label = np.repeat(np.arange(40), np.arange(40, 0, -1))  # class 0 has the most pixels
    names, colors = class_styles({}, "stuff", 40)
    out = add_legend(np.zeros((100, 80, 3), np.uint8), label, names, colors)
    drawn = [i for i, color in enumerate(colors) if (out[:, 80:] == color).all(-1).sum() > 50]
    assert out.shape[0] == 100
    assert drawn == list(range(len(drawn))) and 3 <= len(drawn) <= 6


def test_styles_come_from_metadata_or_are_made_up():
    metadata = {"stuff_classes": ["a", "b"], "stuff_colors": [[1, 2, 3], [4, 5, 6]]}
    names, colors = class_styles(metadata, "stuff", 2)
    assert names == ["a", "b"] and colors.tolist() == [[1, 2, 3], [4, 5, 6]]
    names, colors = class_styles({}, "stuff", 40)
    assert names[3] == "class 3"
    assert len({tuple(c) for c in colors.tolist()}) == 40


def test_boxes_are_drawn_in_their_classes_colours():
    image = np.full((60, 80, 3), 128, np.uint8)
    boxes = np.array([[10.0, 30, 30, 50], [50, 30, 70, 50]])
    names = ["cat", "dog", "cow"]
    out = draw_boxes(image, Scene(boxes=boxes, classes=[0, 2]), names, COLORS)
    edge = out[40, 29:32].astype(int), out[40, 69:72].astype(int)
    assert (edge[0][:, 0] - edge[0][:, 1]).max() > 60 and (edge[1][:, 2] - edge[1][:, 1]).max() > 60
    assert (out[40, 20] == 128).all() and (image == 128).all()
    scored = draw_boxes(image, Scene(boxes=boxes, classes=[0, 2], scores=[0.5, 1]), names, COLORS)
    assert (scored != out).any()
    assert draw_boxes(image, Scene(), names, COLORS) is image


def test_names_of_boxes_stay_within_the_picture():
    image = np.full((60, 80, 3), 128, np.uint8)
    boxes = np.array([[70.0, 0, 80, 60], [0, 50, 80, 60]])
    out = draw_boxes(
        image, Scene(boxes=boxes, classes=[0, 2]), ["\u00fcber", "", "wide " * 9], COLORS
    )
    assert out.shape == image.shape
    corner = out[:12, 45:]
    assert (corner == COLORS[0]).all(-1).sum() > 100 and (corner == 255).all(-1).any()
    assert (out[59, :70] == COLORS[2]).all()


def test_truth_becomes_a_scene(synthetic_dataset):
    record = DatasetCatalog.get("synthetic_boxes_val")[0]
    crowd = {**record["annotations"][0], "iscrowd": 1}
    with_crowd = {**record, "annotations": [*record["annotations"], crowd]}
    truth = Scene.from_record(with_crowd, ("instances",))
    assert truth.label is None and truth.scores is None
    assert len(truth.boxes) == len(truth.classes) == len(record["annotations"]) > 0


def test_boxes_above_a_score():
    boxes = np.array([[1.0, 2, 3, 4], [0, 0, 9, 9]])
    scene = Scene(boxes=boxes, classes=[2, 1], scores=[0.5, 0.2]).above(0.5)
    assert scene.boxes.tolist() == [[1, 2, 3, 4]]
    assert (scene.classes.tolist(), scene.scores.tolist()) == ([2], [0.5])
    truth = Scene(label=np.ones((2, 2)), boxes=boxes, classes=[2, 1])
    assert truth.above(0.5) is truth


@pytest.mark.parametrize("gap", [4, 6])
def test_sheet_places_pictures_in_a_grid(gap):
    pictures = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    sheet = make_sheet([pictures[:2], pictures[2:]], ["a", "b"], gap=gap)
    assert sheet.shape == (24 + 2 * 10 + 2 * gap, 2 * 20 + 3 * gap, 3)
    assert (sheet[-gap - 1, -gap - 1] == 40).all() and (sheet[24, gap] == 10).all()
