"""Label Studio's JSON, as the tool writes it and as it goes wrong."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from topformer_d2.data.formats.brush_rle import brush_alpha
from topformer_d2.data.formats.label_studio import FORMAT
from topformer_d2.errors import InputError


def result(kind, value, labels=("cat",), **more):
    entry = {"id": "x1", "type": kind, "from_name": "label", "to_name": "image"}
    entry |= {"original_width": 60, "original_height": 40, "image_rotation": 0}
    return entry | {"value": value | ({kind: list(labels)} if labels else {})} | more


def task(results, image="/data/upload/1/ab12cd34-a.jpg", **more):
    annotation = {"id": 7, "was_cancelled": False, "result": results}
    return {
        "id": 1,
        "data": {"image": image},
        "annotations": [annotation],
        "predictions": [],
    } | more


def read(folder, *tasks, images=""):
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return FORMAT.read(str(path), images)


def encode(values, bits=8, sizes=(3, 4, 8, 16), *, literally=False):
    """rle-pack's bytes of values, as runs of one value or as values one by one."""
    text = f"{len(values):032b}{bits - 1:05b}" + "".join(f"{n - 1:04b}" for n in sizes)
    i = 0
    while i < len(values):
        end = len(values) if literally else i + 1
        while end < len(values) and values[end] == values[i]:
            end += 1
        end = min(end, i + 2 ** sizes[-1])
        kind = next(k for k, n in enumerate(sizes) if end - i <= 2**n)
        text += f"{int(not literally)}{kind:02b}{end - i - 1:0{sizes[kind]}b}"
        text += "".join(
            f"{v:0{bits}b}" for v in (values[i:end] if literally else values[i : i + 1])
        )
        i = end
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def brush(mask):
    rgba = np.zeros((*mask.shape, 4), int)
    rgba[..., 3] = mask * 255
    return encode(rgba.ravel().tolist())


MASK = np.zeros((40, 60), bool)
MASK[10:20, 5:30] = MASK[39, 59] = MASK[0, 0] = True


def test_regions_of_each_type(tmp_path):
    found = read(
        tmp_path,
        task(
            [
                result("rectanglelabels", {"x": 10, "y": 20, "width": 50, "height": 25}),
                result(
                    "rectanglelabels",
                    {"x": 50, "y": 50, "width": 10, "height": 10, "rotation": 90},
                ),
                result("polygonlabels", {"points": [[0, 0], [50, 0], [50, 50.0]], "closed": True}),
                result("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10}, ["dog"]),
                result("brushlabels", {"format": "rle", "rle": brush(MASK)}, ["sky"]),
                result("keypointlabels", {"x": 1, "y": 1, "width": 0.5}),
                {"type": "choices", "value": {"choices": ["day"]}},
                {"type": "relation", "from_id": "x1", "to_id": "x2"},
            ]
        ),
    )
    assert found.names == ["cat", "dog", "sky"]
    (image,) = found.images
    assert (image.width, image.height, image.is_relative) == (60, 40, False)
    box, turned, polygon, ellipse, sky = image.shapes
    assert box.box == (6, 8, 36, 18)
    assert turned.polygons[0] == pytest.approx((30, 20, 30, 26, 26, 26, 26, 20))
    assert polygon.polygons == ((0, 0, 30, 0, 30, 20),)
    xs, ys = ellipse.polygons[0][::2], ellipse.polygons[0][1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((24, 36, 16, 24))
    assert np.array_equal(coco_mask.decode(sky.rle), MASK)
    assert [p.kind for p in found.problems] == ["annotation not used"]
    assert all(word in found.problems[0].message for word in ("keypointlabels", "choices"))


@pytest.mark.parametrize("bits", [1, 8, 13])
@pytest.mark.parametrize("literally", [False, True])
def test_a_brush_is_decoded(bits, literally):
    values = np.random.default_rng(0).integers(0, 2**bits, 7 * 5 * 4)
    values[40:90] = 1
    data = encode(values.tolist(), bits, literally=literally)
    expected = np.minimum(values.reshape(5, 7, 4)[:, :, 3], 255)
    assert np.array_equal(brush_alpha(data, 7, 5, "brush"), expected)


def test_a_brush_of_the_tool_is_decoded():
    module = pytest.importorskip("label_studio_sdk.converter.brush")
    rgba = np.repeat(MASK.ravel() * 255, 4)
    assert np.array_equal(brush_alpha(module.encode_rle(rgba), 60, 40, "brush") > 0, MASK)


def test_which_annotation_counts(tmp_path):
    labelled = [result("rectanglelabels", {"x": 0, "y": 0, "width": 50, "height": 50})]
    first, last = {"result": []}, {"result": labelled}
    cancelled = {"result": [], "was_cancelled": True}
    found = read(
        tmp_path,
        task([], "a.jpg", annotations=[first, last, cancelled]),
        task([], "b.jpg", annotations=[last, first]),
        task([], "c.jpg", annotations=[cancelled]),
        task([], "d.jpg", annotations=[], predictions=[last]),
        {"id": 5, "data": {"image": "e.jpg"}, "completions": [last]},
    )
    assert [(i.image, len(i.shapes)) for i in found.images] == [
        ("a.jpg", 1),
        ("b.jpg", 0),
        ("e.jpg", 1),
    ]


@pytest.mark.parametrize(
    ("data", "in_folder", "expected"),
    [
        ({"image": "/data/upload/1/ab12cd34-a_b.jpg"}, ["a_b.jpg"], "a_b.jpg"),
        ({"image": "/data/upload/1/ab12cd34-a.jpg"}, ["ab12cd34-a.jpg"], "ab12cd34-a.jpg"),
        ({"image": "/data/upload/1/ab12cd34-a.jpg"}, [], "ab12cd34-a.jpg"),
        ({"image": "/data/local-files/?d=set%201/a.jpg"}, ["a.jpg"], "set 1/a.jpg"),
        ({"pic": "https://x.org/set/a%20b.jpg?w=3"}, ["a b.jpg"], "a b.jpg"),
        ({"pic": "https://x.org/set/a%20b.jpg?w=3"}, ["a%20b.jpg"], "a%20b.jpg"),
        ({"text": "a cat", "pic": "s3://bucket/set/a.png"}, [], "a.png"),
        ({"image": "set\\a.png"}, ["a.png"], "set/a.png"),
    ],
)
def test_which_image_is_meant(tmp_path, data, in_folder, expected):
    for name in in_folder:
        (tmp_path / name).touch()
    found = read(tmp_path, task([], data=data), images=str(tmp_path))
    assert [image.image for image in found.images] == [expected]


def test_a_label_apart_from_its_region(tmp_path):
    value = {"x": 0, "y": 0, "width": 50, "height": 50}
    found = read(
        tmp_path,
        task([result("rectangle", value, []), result("labels", value, ["cat", "animal"])]),
    )
    assert [s.label for s in found.images[0].shapes] == ["cat", "animal"]
    assert not found.problems


BOX = {"x": 0, "y": 0, "width": 50, "height": 50}
CUT = brush(MASK)[:40]


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        result("rectanglelabels", BOX, [])["value"] | {"value": 3},
        result("rectanglelabels", BOX, []),
        result("rectanglelabels", BOX, [3.5]),
        result("rectanglelabels", BOX, original_width=None),
        result("rectanglelabels", BOX, image_rotation=90),
        result("rectanglelabels", BOX | {"x": None}),
        result("rectanglelabels", BOX | {"x": float("nan")}),
        result("rectanglelabels", BOX | {"x": 1e12}),
        result("polygonlabels", {"points": [[0, 0], [1, 1]]}),
        result("polygonlabels", {"points": {"x": 1}}),
        result("brushlabels", {"format": "rle", "rle": "abc"}),
        result("brushlabels", {"format": "rle", "rle": []}),
        result("brushlabels", {"format": "rle", "rle": [1, 2, 300]}),
        result("brushlabels", {"format": "rle", "rle": [255] * 50}),
        result("brushlabels", {"format": "rle", "rle": CUT}),
        result("brushlabels", {"rle": brush(MASK)}, original_width=10**6, original_height=10**6),
        result("brushlabels", {"format": "rle", "rle": brush(MASK * 0)}),
    ],
)
def test_a_malformed_region_is_told_and_left_out(tmp_path, wrong):
    found = read(tmp_path, task([wrong, result("rectanglelabels", BOX, ["dog"], id="y")]))
    assert [s.label for s in found.images[0].shapes] == ["dog"]
    assert [p.kind for p in found.problems] == ["malformed annotation"]
    assert "result 1 of task 1" in found.problems[0].message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([{"id": 1, "image": "a.jpg", "annotator": 1, "annotation_id": 1}], "JSON-MIN"),
        ({"images": []}, "choose the export JSON"),
        ([], "choose the export JSON"),
        ([{"data": {}, "annotations": []}], "submit annotations"),
        ([{"data": {}, "annotations": [{"result": []}]}], "names no image"),
        (
            [{"data": {"image": "data:image/png;base64,aa"}, "annotations": [{"result": []}]}],
            "save",
        ),
    ],
)
def test_another_file_is_refused_with_the_fix(tmp_path, content, named):
    (tmp_path / "export.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"export\.json") as e:
        FORMAT.read(str(tmp_path / "export.json"), "")
    assert named in str(e.value)
