"""CVAT's XML, as the tool writes it and as it goes wrong."""

import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from topformer_d2.data.formats.cvat import FORMAT
from topformer_d2.errors import InputError

META = """<meta><{0}><id>1</id><labels>
<label><name>road</name><color>#c80a20</color><type>any</type></label>
<label><name>car</name><color>#0000ff</color><attributes></attributes></label>
<label><name>hand</name><type>skeleton</type></label>
<label><name>thumb</name><type>points</type><parent>hand</parent></label>
</labels></{0}><dumped>2024-01-01</dumped></meta>"""


TASK = META.format("task")


def document(shapes, meta=TASK, size='width="60" height="40"', name="a.jpg"):
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}'
        f'<image id="0" name="{name}" {size}>{shapes}</image>'
        '<image id="1" name="sub/b.jpg" width="60" height="40"></image></annotations>'
    )


def read(folder, shapes, images="", **more):
    (folder / "annotations.xml").write_text(document(shapes, **more))
    return FORMAT.read(str(folder / "annotations.xml"), images)


SHAPES = """
<polygon label="road" source="manual" occluded="1" points="0.00,1.50;10,1.5;10,9" z_order="1">
<attribute name="wet">true</attribute></polygon>
<box label="car" source="manual" occluded="0" xtl="1" ytl="2" xbr="11.5" ybr="12" z_order="0"/>
<box label="car" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90.00" z_order="0"></box>
<ellipse label="car" cx="30" cy="20" rx="10" ry="5" rotation="90" z_order="2"></ellipse>
<mask label="bush" rle="1, 2, 3, 2" left="5" top="7" width="4" height="2" z_order="-1"></mask>
<polyline label="road" points="1,1;2,2"/><points label="road" points="1,1"/>
<points label="road" points="1,1"/><tag label="road"/>
<box label="car" xtl="1" ytl="2" xbr="3" ybr="4" outside="1"/>
"""


@pytest.mark.parametrize("origin", ["task", "job", "project"])
def test_shapes_of_each_type_in_the_order_of_z(tmp_path, origin):
    found = read(tmp_path, SHAPES, meta=META.format(origin))
    assert found.names == ["road", "car", "bush"]
    assert found.colors == {"road": (200, 10, 32), "car": (0, 0, 255)}
    image, empty = found.images
    assert (image.image, image.width, image.height) == ("a.jpg", 60, 40)
    assert (empty.image, empty.shapes) == ("sub/b.jpg", ())
    bush, box, turned, road, ellipse = image.shapes
    drawn = coco_mask.decode(bush.rle)
    expected = np.zeros((40, 60))
    expected[7, 6:8] = expected[8, 7:9] = 1
    assert bush.label == "bush" and np.array_equal(drawn, expected)
    assert (box.label, box.box, box.polygons) == ("car", (1, 2, 11.5, 12), ())
    assert turned.box is None
    assert turned.polygons[0] == pytest.approx((17, 7, 17, 17, 13, 17, 13, 7))
    assert road.polygons == ((0, 1.5, 10, 1.5, 10, 9),)
    xs, ys = ellipse.polygons[0][::2], ellipse.polygons[0][1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((25, 35, 10, 30))
    assert [p.kind for p in found.problems] == ["annotation not used"]
    assert "2 of <points>" in found.problems[0].message


def test_a_group_is_one_object(tmp_path):
    polygon = '<polygon label="car" points="{0},0;{1},0;{1},4" group_id="3"/>'
    shapes = read(tmp_path, polygon.format(0, 4) + polygon.format(10, 14)).images[0].shapes
    assert [s.polygons for s in shapes] == [((0, 0, 4, 0, 4, 4), (10, 0, 14, 0, 14, 4))]


def test_names_are_those_used_where_none_are_declared(tmp_path):
    found = read(tmp_path, SHAPES, meta="<meta/>")
    assert found.names == ["bush", "car", "road"] and found.colors == {}


@pytest.mark.parametrize(
    "wrong",
    [
        '<box xtl="1" ytl="2" xbr="3" ybr="4"/>',
        '<box label=" " xtl="1" ytl="2" xbr="3" ybr="4"/>',
        '<box label="car" xtl="1" ytl="2" xbr="3"/>',
        '<box label="car" xtl="1" ytl="2" xbr="nan" ybr="4"/>',
        '<box label="car" xtl="1" ytl="2" xbr="1e30" ybr="4"/>',
        '<box label="car" xtl="1" ytl="2" xbr="3" ybr="4" rotation="x"/>',
        '<box label="car" xtl="1" ytl="2" xbr="3" ybr="4" z_order="top"/>',
        '<polygon label="car"/>',
        '<polygon label="car" points="1,1;2,2"/>',
        '<polygon label="car" points="1,1;2,2;3"/>',
        '<ellipse label="car" cx="1" cy="1" rx="inf" ry="1"/>',
        '<mask label="car" rle="1, 2" left="5" top="7" width="4" height="2"/>',
        '<mask label="car" rle="-1, 9" left="5" top="7" width="4" height="2"/>',
        '<mask label="car" rle="99999999999999999999" left="5" top="7" width="4" height="2"/>',
        '<mask label="car" rle="0, 8" left="5" top="77" width="4" height="2"/>',
        '<mask label="car" rle="0, 8" left="0" top="0" width="9999999" height="9999999"/>',
        '<mask label="car" rle="0, 8" left="0.5" top="0" width="4" height="2"/>',
        "<ball/>",
    ],
)
def test_a_malformed_shape_is_told_and_left_out(tmp_path, wrong):
    good = '<box label="road" xtl="1" ytl="2" xbr="3" ybr="4"/>'
    found = read(tmp_path, wrong + good)
    assert [s.label for s in found.images[0].shapes] == ["road"]
    assert [p.kind for p in found.problems] == ["malformed annotation"]
    assert "annotations.xml" in found.problems[0].message and "'a.jpg'" in found.problems[0].message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (document("<box", name="x"), "not XML"),
        ("<annotations/>", "CVAT for images 1.1"),
        ("<annotations><image/></annotations>", "name"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "ENTITY"),
        ("<annotations><track id='0' label='car'/></annotations>", "CVAT for images 1.1"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, content, named):
    path = tmp_path / "annotations.xml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"annotations\.xml") as e:
        FORMAT.read(str(path), "")
    assert named in str(e.value)


@pytest.mark.parametrize("entity", [False, True])
def test_utf_16_is_read_and_its_entities_refused(tmp_path, entity):
    text = document(SHAPES, meta="").replace("utf-8", "utf-16")
    if entity:
        text = text.replace("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>')
    path = tmp_path / "annotations.xml"
    path.write_bytes(text.encode("utf-16"))
    assert FORMAT.detect(str(path), "")
    if entity:
        with pytest.raises(InputError, match="ENTITY"):
            FORMAT.read(str(path), "")
    else:
        assert len(FORMAT.read(str(path), "").images[0].shapes) == 5


def test_mask_without_a_size_is_told(tmp_path):
    found = read(tmp_path, SHAPES, size="")
    assert "malformed annotation" in [p.kind for p in found.problems]
    assert found.images[0].width is None and len(found.images[0].shapes) == 4


def test_a_file_of_datumaro_is_read(tmp_path):
    pytest.importorskip("datumaro")
    from datumaro import Bbox, Dataset, DatasetItem, Image, Mask, Polygon

    mask = np.zeros((40, 60), bool)
    mask[3:5, 10:20] = mask[6, 12] = True
    item = DatasetItem(
        "a",
        media=Image.from_numpy(np.zeros((40, 60, 3), np.uint8)),
        annotations=[
            Bbox(1, 2, 10, 5, label=0, z_order=1),
            Polygon([0, 0, 9, 0, 9, 9], label=1, z_order=0),
            Mask(mask, label=1, z_order=2),
        ],
    )
    Dataset.from_iterable([item], categories=["car", "road"]).export(str(tmp_path), "cvat")
    (file,) = tmp_path.rglob("*.xml")
    assert FORMAT.detect(str(file), "")
    found = FORMAT.read(str(file), "")
    assert found.names == ["car", "road"] and not found.problems
    (image,) = found.images
    assert (image.width, image.height) == (60, 40)
    assert [s.label for s in image.shapes] == ["road", "car", "road"]
    assert image.shapes[0].polygons == ((0, 0, 9, 0, 9, 9),)
    assert image.shapes[1].box == (1, 2, 11, 7) and math.isfinite(image.shapes[1].box[0])
    assert np.array_equal(coco_mask.decode(image.shapes[2].rle), mask)
