"""LabelMe's JSON, as the tool writes it and as it goes wrong."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from topformer_d2.data.formats.labelme import FORMAT
from topformer_d2.errors import InputError


def shape(label, points, kind="polygon", **more):
    entry = {"label": label, "points": points, "group_id": None, "description": ""}
    return entry | {"shape_type": kind, "flags": {}, "mask": None} | more


def document(shapes, image="a.jpg", **more):
    return {
        "version": "5.8.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": 40,
        "imageWidth": 60,
    } | more


def write(folder, name, shapes, **more):
    (folder / name).write_text(json.dumps(document(shapes, **more)))


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def kinds(labelling):
    return [problem.kind for problem in labelling.problems]


def test_shapes_of_each_type(tmp_path):
    mask = np.zeros((3, 4), bool)
    mask[1, 1:] = True
    write(
        tmp_path,
        "a.json",
        [
            shape("_background_", [[0, 0], [10, 0], [10, 5.5]]),
            shape(" cat ", [[30, 20], [10, 5]], "rectangle"),
            shape("ball", [[20, 20], [23, 24]], "circle"),
            shape("mark", [[1, 1]], "point"),
            shape("mark", [[1, 1], [2, 2]], "line"),
            shape("mark", [[1, 1], [2, 2]], "line"),
            shape("sky", [[5, 10], [8, 12]], "mask", mask=png(mask)),
            shape("tilted", [[0, 0], [9, 1], [8, 5], [0, 4]], "oriented_rectangle"),
        ],
        imageData="bm90IHJlYWQ=",
    )
    found = FORMAT.read(str(tmp_path), str(tmp_path))
    assert found.names == ["_background_", "ball", "cat", "sky", "tilted"]
    (image,) = found.images
    assert (image.image, image.width, image.height) == ("a.jpg", 60, 40)
    assert image.source == str(tmp_path / "a.json") and not image.is_relative
    triangle, box, circle, sky, tilted = image.shapes
    assert triangle.polygons == ((0, 0, 10, 0, 10, 5.5),) and triangle.box is None
    assert box.box == (10, 5, 30, 20) and box.polygons == ()
    xs, ys = circle.polygons[0][::2], circle.polygons[0][1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((15, 25, 15, 25))
    drawn = coco_mask.decode(sky.rle)
    assert drawn.shape == (40, 60) and drawn.sum() == 3 and drawn[11, 6:9].all()
    assert tilted.polygons == ((0, 0, 9, 1, 8, 5, 0, 4),)
    # One a file, with the count of each type.
    assert kinds(found) == ["annotation not used"]
    assert "2 shapes of the type 'line'" in found.problems[0].message


def test_a_group_is_one_object(tmp_path):
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    write(
        tmp_path,
        "a.json",
        [
            shape("car", square, group_id=1),
            shape("pole", square, group_id=1),
            shape("car", [[10, 0], [12, 3]], "rectangle", group_id=1),
            shape("car", square),
            shape("sky", [[0, 0], [1, 1]], "mask", mask=png(np.ones((2, 2), bool)), group_id=2),
            shape("sky", [[8, 0], [12, 0], [12, 4], [8, 4]], group_id=2),
        ],
    )
    shapes = FORMAT.read(str(tmp_path), "").images[0].shapes
    assert [s.label for s in shapes] == ["car", "pole", "car", "sky"]
    assert shapes[0].polygons == ((0, 0, 4, 0, 4, 4, 0, 4), (10, 0, 12, 0, 12, 3, 10, 3))
    assert coco_mask.area(shapes[3].rle) == 4 + 16


@pytest.mark.parametrize(
    ("file", "image_path", "in_folder", "expected"),
    [
        ("a.json", "a.png", ["a.jpg", "a.png"], "a.png"),
        ("a.json", "..\\images\\a.png", ["a.png"], "../images/a.png"),
        ("0001.json", "IMG_1.jpg", ["0001.jpg"], "0001"),
        ("0001.json", "IMG_1.jpg", ["IMG_1.jpg"], "IMG_1.jpg"),
        ("0001.json", "IMG_1.jpg", [], "0001"),
        ("a.json", None, ["a.jpg"], "a"),
        ("a.json", ["wrong"], ["a.jpg"], "a"),
    ],
)
def test_which_image_is_meant(tmp_path, file, image_path, in_folder, expected):
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    for name in in_folder:
        (tmp_path / "images" / name).touch()
    write(tmp_path / "labels", file, [], imagePath=image_path)
    found = FORMAT.read(str(tmp_path / "labels"), str(tmp_path / "images"))
    assert [(i.image, i.shapes) for i in found.images] == [(expected, ())]


GOOD = [[0, 0], [4, 0], [4, 4]]


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        {"points": GOOD},
        shape(None, GOOD),
        shape("", GOOD),
        shape("a\nb", GOOD),
        shape("cat", GOOD[:2]),
        shape("cat", [[0, 0], [1], [2, 2]]),
        shape("cat", [[0, 0], [1, float("nan")], [2, 2]]),
        shape("cat", [[0, 0], [1, 1e300], [2, 2]]),
        shape("cat", [[0, 0], [1, 10**400], [2, 2]]),
        shape("cat", [[0, 0], [1, True], [2, 2]]),
        shape("cat", "0,0"),
        shape("cat", GOOD, "hexagon"),
        shape("cat", GOOD, ["polygon"]),
        shape("cat", GOOD, group_id=[1]),
        shape("cat", GOOD, "circle"),
        shape("cat", [[0, 0], [1, 1]], "mask", mask=None),
        shape("cat", [[0, 0], [1, 1]], "mask", mask="bm90IGEgcG5n"),
        shape("cat", [[500, 0], [501, 1]], "mask", mask=png(np.ones((2, 2), bool))),
    ],
)
def test_a_malformed_shape_is_told_and_left_out(tmp_path, wrong):
    write(tmp_path, "a.json", [wrong, shape("dog", GOOD)])
    found = FORMAT.read(str(tmp_path), "")
    assert [s.label for s in found.images[0].shapes] == ["dog"]
    assert kinds(found) == ["malformed annotation"]
    assert found.problems[0].file == str(tmp_path / "a.json")
    assert "a.json" in found.problems[0].message and "shapes[0]" in found.problems[0].message


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"shapes": 1}', b"\xff", b'{"shapes":' + b"[" * 100_000]
)
def test_a_malformed_file_is_told(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.json"):
        FORMAT.read(str(tmp_path), "")
    write(tmp_path, "a.json", [])
    found = FORMAT.read(str(tmp_path), "")
    assert [image.image for image in found.images] == ["a.jpg"]
    assert [(p.kind, p.file) for p in found.problems] == [
        ("malformed annotation", str(tmp_path / "bad.json"))
    ]


def test_a_folder_without_json_names_those_that_have_some(tmp_path):
    (tmp_path / "train").mkdir()
    write(tmp_path / "train", "a.json", [])
    with pytest.raises(InputError, match="'train'"):
        FORMAT.read(str(tmp_path), "")


def test_a_file_of_the_tool_is_read(tmp_path):
    pytest.importorskip("loguru")
    label_file = pytest.importorskip("labelme._label_file")
    pixels = np.zeros((40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.eye(4, dtype=bool)
    utils = pytest.importorskip("labelme.utils")
    shapes = [
        shape("cat", [[1.0, 2.0], [11.0, 2.0], [11.0, 9.0]]),
        shape("sky", [[5.0, 6.0], [8.0, 9.0]], "mask", mask=utils.img_arr_to_b64(mask)),
    ]
    label_file.write_label_file(
        filename=str(tmp_path / "a.json"),
        shapes=shapes,
        image_path="a.png",
        image_height=40,
        image_width=60,
        image_data=(tmp_path / "a.png").read_bytes(),
        flags={},
        other_data={},
    )
    found = FORMAT.read(str(tmp_path), str(tmp_path))
    assert FORMAT.detect(str(tmp_path), str(tmp_path)) and not found.problems
    (image,) = found.images
    expected, _ = utils.shapes_to_label(
        (40, 60, 3),
        [shapes[0], shapes[1] | {"mask": mask}],
        {"cat": 1, "sky": 2},
    )
    assert image.shapes[0].polygons == ((1, 2, 11, 2, 11, 9),)
    assert np.array_equal(coco_mask.decode(image.shapes[1].rle) == 1, expected == 2)
