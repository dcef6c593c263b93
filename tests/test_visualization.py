"""Overlays, legends and sheets, by their pixels."""

import numpy as np
import pytest

from topformer_d2.visualization import add_legend, blend_labels, class_styles, make_sheet

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
    names, colors = class_styles({}, 40)
    out = add_legend(np.zeros((100, 80, 3), np.uint8), label, names, colors)
    drawn = [i for i, color in enumerate(colors) if (out[:, 80:] == color).all(-1).sum() > 50]
    assert out.shape[0] == 100
    assert drawn == list(range(len(drawn))) and 3 <= len(drawn) <= 6


def test_styles_come_from_metadata_or_are_made_up():
    metadata = {"stuff_classes": ["a", "b"], "stuff_colors": [[1, 2, 3], [4, 5, 6]]}
    names, colors = class_styles(metadata, 2)
    assert names == ["a", "b"] and colors.tolist() == [[1, 2, 3], [4, 5, 6]]
    names, colors = class_styles({}, 40)
    assert names[3] == "class 3"
    assert len({tuple(c) for c in colors.tolist()}) == 40


@pytest.mark.parametrize("gap", [4, 6])
def test_sheet_places_pictures_in_a_grid(gap):
    pictures = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    sheet = make_sheet([pictures[:2], pictures[2:]], ["a", "b"], gap=gap)
    assert sheet.shape == (24 + 2 * 10 + 2 * gap, 2 * 20 + 3 * gap, 3)
    assert (sheet[-gap - 1, -gap - 1] == 40).all() and (sheet[24, gap] == 10).all()
