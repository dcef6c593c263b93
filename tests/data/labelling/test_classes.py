"""Entries of DATASETS.FOLDERS, and which classes the labels become."""

import re

import numpy as np
import pytest

from topformer_d2.data.categories import Categories
from topformer_d2.data.formats import Labelling
from topformer_d2.data.labelling.classes import box_classes, pixel_classes
from topformer_d2.data.labelling.entry import Entry, label_key
from topformer_d2.errors import InputError

PLAIN = {"IMAGES": "i", "LABELS": "l"}


def entry(**keys):
    return Entry.parse("mine", {**PLAIN, **keys})


def listed(*names, colors=()):
    return Categories(names, colors, tuple(range(len(names))))


def pixels(names, given, classes=None, *, is_raster=False, values=None, colors=None):
    labelling = Labelling([], list(names), values or {}, colors or {})
    return pixel_classes(labelling, given, classes, is_raster=is_raster, where="FOLDERS.mine")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"LABEL": "x"}, "LABEL is unknown (did you mean 'LABELS'?)"),
        ({"CLASSES": []}, "CLASSES is []"),
        ({"CLASSES": ["a", "a"]}, "'a' twice"),
        ({"CLASSES": ["a", "ignore"]}, "'ignore'"),
        ({"LABEL_MAP": "x"}, "LABEL_MAP is 'x'"),
        ({"LABEL_MAP": {"1": 2.5}}, "makes '1' 2.5"),
        ({"LABEL_MAP": {"1": True}}, "makes '1' True"),
        ({"IGNORE": "void"}, "IGNORE is 'void'"),
        ({"SHARE": 0.8}, "SHARE is 0.8"),
        ({"SHARE": [0.8, 0.2]}, "SHARE is [0.8, 0.2]"),
        ({"SHARE": [0, "1"]}, "SHARE is [0, '1']"),
        ({"GROUP": "("}, "not a regular expression"),
        ({"SPLIT_SEED": "a"}, "SPLIT_SEED is 'a'"),
        ({"FORMAT": 3}, "FORMAT is 3"),
        ({"LIST": "https://a/list.txt"}, "a web address"),
    ],
)
def test_wrong_values_name_their_key(keys, named):
    with pytest.raises(InputError, match=rf"DATASETS\.FOLDERS\.mine.*{re.escape(named)}"):
        entry(**keys)


@pytest.mark.parametrize(
    "color", ["128 64 0", "128,64,0", "[128, 64, 0]", "(128,64, 0)", [128, 64, 0]]
)
def test_a_colour_is_written_in_several_ways(color):
    assert label_key(color) == "128 64 0"
    assert label_key("traffic light 2") == "traffic light 2"


def test_classes_of_shapes_follow_the_background():
    found = pixels(["cat", "dog"], entry())
    assert found.names == ("background", "cat", "dog")
    assert [found.find(name) for name in ("background", "dog", "cow")] == [0, 2, None]
    ignored = pixels(["cat", "dog"], entry(LABEL_MAP={"background": "ignore"}))
    assert ignored.names == ("cat", "dog") and ignored.find("background") == -1
    own = pixels(["cat", "dog"], entry(), listed("dog", "cat"))
    assert own.names == ("dog", "cat") and own.find("background") == -1


def test_labels_are_joined_renamed_and_ignored():
    keys = {"LABEL_MAP": {"cat": "pet", "dog": "pet", "blur": "ignore"}, "IGNORE": ["void"]}
    found = pixels(["blur", "cat", "cow", "dog", "void"], entry(**keys))
    assert found.names == ("background", "pet", "cow")
    assert [found.find(n) for n in ("cat", "dog", "blur", "void")] == [1, 1, -1, -1]
    by_index = pixels(["a", "b"], entry(LABEL_MAP={"a": 1}), listed("x", "b"))
    assert (by_index.find("a"), by_index.find("b")) == (1, 1)


@pytest.mark.parametrize(
    ("names", "keys", "classes", "named"),
    [
        (["cat", "dgo"], {}, listed("cat", "dog"), "'dgo', which CLASSES lacks (did you mean"),
        (["cat"], {"LABEL_MAP": {"cat": "pte"}}, listed("pet"), "'pte'"),
        (["cat"], {"LABEL_MAP": {"cat": 3}}, listed("pet"), "the class 3"),
        (["cat"], {"LABEL_MAP": {"cat": 0}}, None, "the class 0"),
    ],
)
def test_labels_without_a_class_are_told(names, keys, classes, named):
    with pytest.raises(InputError, match=rf"FOLDERS\.mine.*{re.escape(named)}"):
        pixels(names, entry(**keys), classes)


def test_values_without_names_are_indices():
    found = pixels(
        [], entry(LABEL_MAP={"190": "car", "7": "ignore"}), listed("road", "car"), is_raster=True
    )
    table = found.table(Labelling([], []), 255)
    assert table[[0, 1, 2, 7, 190, 255]].tolist() == [0, 1, -1, 255, 1, 255]
    alone = pixels([], entry(LABEL_MAP={"0": "road", "190": "car", "255": "sky"}), is_raster=True)
    assert alone.names == ("road", "car", "sky")
    assert alone.table(Labelling([], []), 255)[[0, 1, 190, 255]].tolist() == [0, -1, 1, 2]
    with pytest.raises(InputError, match="add CLASSES"):
        pixels([], entry(), is_raster=True)


def test_values_have_the_files_names():
    labelling = Labelling([], ["road", "sky"], {5: "road", 9: "sky"}, {"sky": (1, 2, 3)})
    found = pixel_classes(labelling, entry(), None, is_raster=True, where="FOLDERS.mine")
    assert found.names == ("road", "sky") and found.colors == ()
    assert found.table(labelling, 255)[[0, 5, 9]].tolist() == [-1, 0, 1]


def test_colours_are_those_of_the_class_list():
    colors = ((0, 0, 255), (10, 20, 30))
    found = pixels([], entry(), listed("sky", "car", colors=colors), is_raster=True)
    table = found.table(Labelling([], []), 255, has_colors=True)
    car = 10 << 16 | 20 << 8 | 30
    # The blue of the sky is the number 255.
    assert table[[255, car]].tolist() == [0, 1]
    mapped = pixels([], entry(LABEL_MAP={"10,20,30": "sky"}), listed("sky", "car"), is_raster=True)
    assert mapped.table(Labelling([], []), 255, has_colors=True)[car] == 0
    assert np.count_nonzero(found.table(Labelling([], []), 255, has_colors=True) >= 0) == 4


def test_boxes_have_no_background():
    labelling = Labelling([], ["background", "cat", "dog"])
    found = box_classes(labelling, entry(LABEL_MAP={"dog": "ignore"}), None, where="FOLDERS.mine")
    assert found.names == ("cat",) and found.find("dog") == found.find("background") == -1
    with pytest.raises(InputError, match="no object"):
        box_classes(Labelling([], ["background"]), entry(), None, where="FOLDERS.mine")
