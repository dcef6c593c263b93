"""Faults of files that the tests of a format alone do not have: each is named with its place."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from topformer_d2.data.formats import FORMATS, Shape, detect_format
from topformer_d2.data.formats.groups import join_groups
from topformer_d2.data.formats.raster_files import find_labels
from topformer_d2.data.formats.regions import check_rle
from topformer_d2.data.formats.values import hex_color
from topformer_d2.errors import InputError


def write_mask(path, values, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, **more)


@pytest.mark.parametrize(
    ("path", "task", "name", "named"),
    [
        ("absent", "sem_seg", "", r"own\.LABELS names .*absent"),
        ("masks", "sem_seg", "indexmasks", r"own\.FORMAT is 'indexmasks' .*'index_masks'"),
        ("masks", "instances", "", r"masks is of the format index_masks, which has no boxes"),
        ("empty", "instances", "", r"empty holds labels of no known format.*own\.FORMAT"),
    ],
)
def test_labels_of_no_format_are_told(tmp_path, path, task, name, named):
    (tmp_path / "empty").mkdir()
    write_mask(tmp_path / "masks/0.png", np.eye(9))
    write_mask(tmp_path / "images/0.png", np.zeros((9, 9, 3)))
    labels = str(tmp_path / path)
    with pytest.raises(InputError, match=named):
        detect_format(labels, str(tmp_path / "images"), task, name, "DATASETS.FOLDERS.own.LABELS")


@pytest.mark.parametrize(
    ("name", "file"), [("coco", ".json"), ("cvat", ".xml"), ("label_studio", ".json")]
)
def test_a_folder_without_the_one_file_is_told_its_kind(tmp_path, name, file):
    with pytest.raises(InputError, match=rf"{tmp_path} is not one .*\{file}"):
        FORMATS[name].read(str(tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    ("task", "named"),
    [
        (5, "5, which is no task"),
        ({"data": {"image": "http://[x/a.jpg"}, "annotations": []}, "no path or URL"),
        ({"data": {"image": "http://x/images/"}, "annotations": []}, "names no file"),
        ({"data": {"image": "data:image/png;base64,xx"}, "annotations": []}, "is in the JSON"),
    ],
)
def test_tasks_of_label_studio_that_cannot_be_used(tmp_path, task, named):
    good = {"data": {"image": "a.jpg"}, "annotations": [{"result": []}]}
    if isinstance(task, dict):
        task = {**task, "annotations": [{"result": []}]}
    (tmp_path / "export.json").write_text(json.dumps([good, task]))
    found = FORMATS["label_studio"].read(str(tmp_path / "export.json"), "")
    (problem,) = found.problems
    assert len(found.images) == 1 and named in problem.message and "export.json" in problem.file


def test_areas_of_coco_as_text_order_the_shapes(tmp_path):
    areas = ["5", "900", "x", None, "-1", 30]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [n, 0, 10, 10], "area": area}
            for n, area in enumerate(areas)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (image,) = FORMATS["coco"].read(str(tmp_path / "a.json"), "").images
    # Those without an area of their own have their box's, 100.
    assert [int(shape.box[0]) for shape in image.shapes] == [1, 2, 3, 4, 5, 0]


def test_folders_of_label_images_that_have_none(tmp_path):
    with pytest.raises(InputError, match=r"s3://masks.*copy it"):
        find_labels("s3://masks", str(tmp_path))
    write_mask(tmp_path / "0.png", np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match=rf"{tmp_path} holds the images.*_mask"):
        FORMATS["index_masks"].read(str(tmp_path), str(tmp_path))


def test_label_images_whose_numbers_are_not_certain(tmp_path):
    decode = FORMATS["index_masks"].decode
    white = str(tmp_path / "white.tif")
    Image.fromarray(np.eye(6, dtype=np.uint8)).save(white, tiffinfo={262: 0})
    with pytest.raises(InputError, match=r"white\.tif is a TIFF in which 0 is white"):
        decode([white], [])
    deep = str(tmp_path / "deep.png")
    cv2.imwrite(deep, np.full((4, 4, 3), 40_000, np.uint16))
    with pytest.raises(InputError, match=r"deep\.png has 16 bits"):
        decode([deep], [])


@pytest.mark.parametrize(
    ("rle", "named"),
    [
        ({"size": [3, 3], "counts": "b'x"}, "its RLE"),
        ({"size": [3, 3], "counts": "ooooo0"}, "its RLE"),
        ({"size": [3, 3], "counts": "PPPPP1"}, "its RLE"),
        ({"size": [3, 3], "counts": "é"}, "its RLE"),
        ({"size": [0, 3], "counts": [0]}, "'size'"),
    ],
)
def test_masks_that_are_no_rle(rle, named):
    with pytest.raises(InputError, match=f"the mask of 7.*{named}"):
        check_rle(rle, "the mask of 7")


@pytest.mark.parametrize("color", ["#zzzzzz", "#12345", [300, 0, 0], [1, 2], "red", None])
def test_what_is_no_colour_is_none(color):
    assert hex_color(color) is None and hex_color("#0a0bff") == (10, 11, 255)


def test_a_folder_of_supervisely_without_an_image_is_told(tmp_path):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "meta.json").write_text("{}")
    with pytest.raises(InputError, match="ann has no JSON of an image"):
        FORMATS["supervisely"].read(str(tmp_path / "ann"), "")


def test_a_group_of_masks_and_polygons_takes_the_size_of_its_image():
    mask = Shape("cat", rle={"size": [4, 4], "counts": "04<"})
    polygon = Shape("cat", polygons=((0.0, 0.0, 3.0, 0.0, 3.0, 3.0),))
    with pytest.raises(InputError, match=r"group of 'cat' .*size is missing"):
        join_groups([(mask, 1), (polygon, 1)], None)
