"""Label images of colours, and the tables that name them."""

import numpy as np
import pytest

from tests.data.formats import rasters
from topformer_d2.errors import InputError

PACKED = {0: 424, 0xFA3253: 80, 0x24B353: 264}


def test_colours_without_a_table_have_no_names(tmp_path):
    labels, images = rasters.SAMPLES["colours"][1](tmp_path)
    labelling = rasters.read("colour_masks", labels, images)
    assert (labelling.names, labelling.values, labelling.colors) == ([], {}, {})
    assert rasters.counts("colour_masks", labelling) == PACKED


@pytest.mark.parametrize("place", ["labels", ".", ".."])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbg:0,0,0::\ncat:250,50,83::\n"),
        ("class_dict.csv", "name,r,g,b\nbg,0,0,0\n\ncat, 250, 50, 83\n"),
        ("class_dict.csv", "Label,Red,Green,Blue,x\nbg,0,0,0,1\ncat,250,50,83,2\n"),
        ("label_colors.txt", "0 0 0\tbg\n250 50 83\t\tcat\n"),
    ],
)
def test_names_and_colours_of_tables(tmp_path, file, content, place):
    labels, images = rasters.SAMPLES["colours"][1](tmp_path / "set")
    (tmp_path / "set" / place / file).write_text(content)
    labelling = rasters.read("colour_masks", labels, images)
    assert labelling.names == ["bg", "cat"]
    assert labelling.values == {0: "bg", 0xFA3253: "cat"}
    assert labelling.colors == {"bg": (0, 0, 0), "cat": (250, 50, 83)}


def test_a_class_may_have_several_colours_but_not_the_reverse(tmp_path):
    labels, images = rasters.camvid(tmp_path)
    table = tmp_path / "class_dict.csv"
    table.write_text("name,r,g,b\nanimal,250,50,83\nbg,0,0,0\nanimal,36,179,83\n")
    labelling = rasters.read("colour_masks", labels, images)
    assert labelling.names == ["animal", "bg"] and labelling.colors["animal"] == (250, 50, 83)
    assert labelling.values == {0xFA3253: "animal", 0: "bg", 0x24B353: "animal"}
    table.write_text("name,r,g,b\ncat,250,50,83\nbg,0,0,0\ndog,250,50,83\n")
    with pytest.raises(InputError, match=r"class_dict\.csv: 'cat' and 'dog'"):
        rasters.read("colour_masks", labels, images)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("class_dict.csv", ""),
        ("class_dict.csv", "name,r,g,b\n"),
        ("class_dict.csv", "a,b\n1,2\n"),
        ("class_dict.csv", "name,r,g,b\ncat,1,2\n"),
        ("class_dict.csv", "name,r,g,b\ncat,1,2,256\n"),
        ("class_dict.csv", "name,r,g,b\n,1,2,3\n"),
        ("class_dict.csv", 'name,r,g,b\n"cat,1,2,3\n' + "x" * 200_000),
        ("class_dict.csv", b"\xff\xfe\x00name"),
        ("label_colors.txt", "0 0 0 bg\ncat\n"),
        ("label_colors.txt", "0 0 999 bg\n"),
        ("labelmap.txt", ""),
        ("labelmap.txt", "bg:0,0,0::\ncat:0,999,0::\n"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, file, content):
    labels, images = rasters.SAMPLES["colours"][1](tmp_path)
    (labels / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        rasters.read("colour_masks", labels, images)
    assert rasters.detected(labels, images) == ["colour_masks"]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda v: np.dstack([rasters.COLORS[v], v * np.uint8(100)]), PACKED),  # alpha
        (rasters.palette_image, PACKED),
        (lambda v: v * np.uint8(100), {0: 424, 0x646464: 80, 0xC8C8C8: 264}),
        (lambda v: v == 2, {0: 504, 0xFFFFFF: 264}),
    ],
)
def test_colours_of_each_kind_of_file(tmp_path, make, expected):
    rasters.save(make(rasters.label()), tmp_path / "labels/im0.png")
    labelling = rasters.read("colour_masks", tmp_path / "labels", tmp_path)
    assert rasters.counts("colour_masks", labelling) == expected


def test_deep_files_are_refused(tmp_path):
    rasters.save(rasters.label().astype(np.uint16), tmp_path / "labels/im0.png")
    labelling = rasters.read("colour_masks", tmp_path / "labels", tmp_path)
    with pytest.raises(InputError, match=r"im0\.png.*index_masks"):
        rasters.counts("colour_masks", labelling)


def test_black_files_with_a_table_of_colours_are_colours(tmp_path):
    labels, images = rasters.camvid(tmp_path)
    for stem in rasters.STEMS:
        rasters.save(np.zeros((24, 32, 3), np.uint8), labels / f"{stem}_L.png")
    assert rasters.detected(labels, images) == ["colour_masks"]
    (tmp_path / "class_dict.csv").unlink()
    assert rasters.detected(labels, images) == ["index_masks"]
