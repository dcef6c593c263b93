"""Which image a label is of, which images are used, and how shapes are drawn."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from topformer_d2.data.formats import LabelledImage, Shape
from topformer_d2.data.labelling.drawing import draw, shape_box, to_pixels
from topformer_d2.data.labelling.entry import Entry
from topformer_d2.data.labelling.matching import ImageFolder, image_size
from topformer_d2.data.labelling.splits import choose
from topformer_d2.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b 1.jpg", "x/c.png", "y/c.png", "y/d.e.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    return ImageFolder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a", "a.png"),
        ("a.jpeg", "a.png"),
        ("images/a.png", "a.png"),
        ("..\\pictures\\a.png", "a.png"),
        ("/data/b%201.jpg", "b 1.jpg"),
        ("b%201.jpg?d=3", "b 1.jpg"),
        ("x/c.png", "x/c.png"),
        ("root\\y\\c", "y/c.png"),
        ("d.e", "y/d.e.png"),
        ("e", None),
    ],
)
def test_an_image_is_found_by_what_labels_call_it(folder, name, file):
    assert folder.find(name) == file


def test_a_name_of_several_images_is_told(folder):
    with pytest.raises(InputError, match=r"'c.png' may be x/c.png or y/c.png"):
        folder.find("c.png")
    assert folder.files == ["a.png", "b 1.jpg", "x/c.png", "y/c.png", "y/d.e.png"]


def test_labels_among_the_images_are_no_images(folder, tmp_path):
    assert "a.png" not in ImageFolder(str(tmp_path), [str(tmp_path / "a.png")]).files
    with pytest.raises(InputError, match="has no image"):
        (tmp_path / "empty").mkdir()
        ImageFolder(str(tmp_path / "empty"))


def test_the_size_is_that_of_the_turned_image(tmp_path):
    image = Image.new("RGB", (8, 5))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert image_size(str(tmp_path / "a.jpg")) == (5, 8)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b\.jpg cannot be read"):
        image_size(str(tmp_path / "b.jpg"))


FILES = [f"seq{i // 5}/{i:02d}.png" for i in range(20)]


def chosen(**keys):
    return choose(FILES, Entry("i", "l", **keys), "FOLDERS.mine")


def test_shares_have_no_image_in_common():
    first, second = chosen(share=(0.0, 0.8)), chosen(share=(0.8, 1.0))
    assert (len(first), len(second)) == (16, 4) and sorted(first + second) == FILES
    assert chosen(share=(0.0, 0.8)) == first
    assert chosen(share=(0.0, 0.8), split_seed=1) != first


def test_groups_stay_together():
    parts = [chosen(share=share, group=r"^(seq\d)/") for share in ((0.0, 0.5), (0.5, 1.0))]
    groups = [{file[:4] for file in part} for part in parts]
    assert not groups[0] & groups[1] and len(groups[0]) == len(groups[1]) == 2
    with pytest.raises(InputError, match="GROUP 'scene' finds nothing"):
        chosen(group="scene")


def test_a_list_names_images(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("images/seq0/01.png\n\n02\nseq3\\19 1\n")
    assert chosen(list_file=str(path)) == ["seq0/01.png", "seq0/02.png", "seq3/19.png"]
    path.write_text("01\n99\n")
    with pytest.raises(InputError, match=r"train\.txt, line 2: .*'99'"):
        chosen(list_file=str(path))


SQUARE = Shape("a", polygons=((2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0),))


def test_a_later_shape_covers_an_earlier_one():
    box = Shape("b", (4.0, 0.0, 9.0, 3.0))
    label = draw([(SQUARE, 1), (box, 2)], 5, 8, 0)
    expected = np.zeros((5, 8), np.uint8)
    expected[1:4, 2:6] = 1
    expected[0:3, 4:8] = 2
    assert label.tolist() == expected.tolist()
    assert draw([(box, 2), (SQUARE, 1)], 5, 8, 0)[2, 5] == 1


@pytest.mark.parametrize("kind", ["compressed", "bytes", "list"])
def test_masks_are_those_of_coco(kind):
    mask = np.zeros((6, 7), np.uint8)
    cv2.circle(mask, (3, 2), 2, 1, -1)
    rle = coco_masks.encode(np.asfortranarray(mask))
    if kind == "compressed":
        rle["counts"] = rle["counts"].decode()
    elif kind == "list":
        flat = mask.flatten(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
        rle["counts"] = np.diff([0, *edges, flat.size]).tolist()
    shape = Shape("a", rle=rle)
    assert (draw([(shape, 3)], 6, 7, 0) == 3 * mask).all()
    assert shape_box(shape, 6, 7) == (1, 0, 6, 5)


@pytest.mark.parametrize(
    ("rle", "named"),
    [
        ({"size": [5, 5], "counts": [25]}, r"\[5, 5\]"),
        ({"size": [6, 7], "counts": [20, 5]}, "25 pixels"),
        ({"size": [6, 7], "counts": [50, -8]}, "42|run"),
        ({"size": [6, 7], "counts": "zz"}, "mask of 'a'"),
        ({"size": [6, 7], "counts": "P"}, "cut"),
        ({"size": [6, 7], "counts": "0"}, "0 pixels"),
        ({"size": [6, 7]}, "damaged"),
    ],
)
def test_damaged_masks_are_told(rle, named):
    with pytest.raises(InputError, match=named):
        draw([(Shape("a", rle=rle), 1)], 6, 7, 0)


@pytest.mark.parametrize("value", [1e9, float("nan"), float("inf"), -1e9])
def test_polygons_far_outside_are_told(value):
    shape = Shape("a", polygons=((0.0, 0.0, value, 1.0, 2.0, 2.0),))
    with pytest.raises(InputError, match=re.escape(str(value))):
        draw([(shape, 1)], 6, 7, 0)


def test_shares_of_the_image_become_pixels():
    shape = Shape("a", (0.25, 0.5, 0.5, 1.0), ((0.5, 0.5, 1.0, 1.0, 0.0, 1.0),))
    (scaled,) = to_pixels(LabelledImage("a", shapes=(shape,), is_relative=True), 10, 20)
    assert scaled.box == (5, 5, 10, 10)
    assert scaled.polygons == ((10, 5, 20, 10, 0, 10),)
    assert shape_box(scaled._replace(box=None), 10, 20) == (0, 5, 20, 10)


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "in" / "a.png")
    Path(tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert ImageFolder(str(tmp_path / "in")).files == ["a.png"]


@pytest.mark.parametrize(
    ("labels", "origin"),
    [
        (LabelledImage("a", files=("m.png",), source="a.json"), "a.json"),
        (LabelledImage("a", files=("m.png", "n.png")), "m.png"),
        (LabelledImage("a"), "labels"),
    ],
)
def test_a_message_names_the_file_to_fix(labels, origin):
    assert labels.origin("labels") == origin
