"""VOC's XML, as tools write it and as it goes wrong."""

import pytest

from topformer_d2.data.formats.voc import FORMAT
from topformer_d2.errors import InputError


def obj(name, corners, more=""):
    keys = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    box = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def write(folder, name, *objects, head="<filename>a.jpg</filename>", size="60 40 3"):
    folder.mkdir(exist_ok=True)
    keys = zip(("width", "height", "depth"), size.split(), strict=False)
    sizes = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    text = f"<annotation>{head}<size>{sizes}</size>{''.join(objects)}</annotation>"
    (folder / name).write_text(text)


def kinds(found):
    return [p.kind for p in found.problems]


@pytest.mark.parametrize("where", ["", "Annotations"])
def test_boxes_are_pixels_from_one(tmp_path, where):
    write(
        tmp_path / where,
        "a.xml",
        obj("cat", (1, 2, 11, 12), "<truncated>1</truncated>"),
        obj(" dog ", ("10.5", "20", "70", "40"), "<difficult>1</difficult>"),
    )
    write(tmp_path / where, "b.xml", head="", size="")
    assert FORMAT.detect(str(tmp_path), "")
    found = FORMAT.read(str(tmp_path), "")
    assert found.names == ["cat", "dog"] and not found.problems
    a, b = found.images
    assert (a.image, a.width, a.height) == ("a.jpg", 60, 40)
    assert (b.image, b.width, b.shapes) == ("b", None, ())
    cat, dog = a.shapes
    assert (cat.box, cat.is_crowd) == ((0, 1, 11, 12), False)
    # It is cut to the image, as data prepare does.
    assert (dog.box, dog.is_crowd) == ((9.5, 19, 60, 40), True)


def test_boxes_are_edges_from_zero_where_one_begins_there(tmp_path):
    write(tmp_path, "a.xml", obj("cat", (5, 5, 11, 12)))
    write(tmp_path, "b.xml", obj("cat", (0, 5, 11, 12)), obj("cat", (-3, 0.5, 11, 12)))
    found = FORMAT.read(str(tmp_path), "")
    assert [s.box for i in found.images for s in i.shapes] == [
        (5, 5, 11, 12),
        (0, 5, 11, 12),
        (0, 0.5, 11, 12),
    ]


@pytest.mark.parametrize(
    "points",
    [
        "<x1>3</x1><y1>4</y1><x2>9.5</x2><y2>4</y2><x3>9</x3><y3>8</y3>",
        "<pt><x>3</x><y>4</y></pt><pt><x>9.5</x><y>4</y></pt><pt><x>9</x><y>8</y></pt>",
        "<point><x>3</x><y>4</y></point><point><x>9.5</x><y>4</y></point>"
        "<point><x>9</x><y>8</y></point>",
    ],
)
def test_polygons_of_newer_tools(tmp_path, points):
    polygon = f"<polygon>{points}</polygon>"
    write(
        tmp_path,
        "a.xml",
        obj("cat", (3, 4, 9, 8), polygon),
        f"<object><name>cat</name>{polygon}</object>",
    )
    first, second = FORMAT.read(str(tmp_path), "").images[0].shapes
    assert first.polygons == second.polygons == ((3, 4, 9.5, 4, 9, 8),)
    assert (first.box, second.box) == ((2, 3, 9, 8), None)


@pytest.mark.parametrize(
    ("head", "in_folder", "expected"),
    [
        ("<filename>1.png</filename>", ["1.png", "1.jpg"], "1.png"),
        ("<filename>old.jpg</filename>", ["1.jpg"], "1"),
        ("<filename>old.jpg</filename>", ["old.jpg"], "old.jpg"),
        ("<filename></filename><path>C:\\set\\img.jpg</path>", ["img.jpg"], "img.jpg"),
        ("", ["1.jpg"], "1"),
        ("<filename>wrong/</filename>", [], "1"),
    ],
)
def test_which_image_is_meant(tmp_path, head, in_folder, expected):
    (tmp_path / "images").mkdir()
    for name in in_folder:
        (tmp_path / "images" / name).touch()
    write(tmp_path / "labels", "1.xml", head=head)
    found = FORMAT.read(str(tmp_path / "labels"), str(tmp_path / "images"))
    assert [image.image for image in found.images] == [expected]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("<object/>", "malformed annotation"),
        ("<object><name>cat</name></object>", "malformed annotation"),
        (obj("", (1, 2, 3, 4)), "malformed annotation"),
        (obj("cat", (1, 2, 3)), "malformed annotation"),
        (obj("cat", (1, 2, 3, "nan")), "malformed annotation"),
        (obj("cat", (1, 2, 3, "1e99")), "malformed annotation"),
        (obj("cat", (1, 2, 3, "x")), "malformed annotation"),
        (
            obj("cat", (1, 2, 9, 9), "<polygon><x1>1</x1><y1>1</y1></polygon>"),
            "malformed annotation",
        ),
        (obj("cat", (5, 5, 5, 9)), "box of no area"),
        (obj("cat", (9, 5, 5, 9)), "box of no area"),
        (obj("cat", (500, 5, 600, 9)), "box of no area"),
    ],
)
def test_a_malformed_object_is_told_and_left_out(tmp_path, wrong, kind):
    write(tmp_path, "a.xml", wrong, obj("dog", (1, 2, 5, 6)))
    found = FORMAT.read(str(tmp_path), "")
    assert [s.label for s in found.images[0].shapes] == ["dog"]
    assert kinds(found) == [kind] and "a.xml" in found.problems[0].message


@pytest.mark.parametrize(
    "content",
    [
        "<annotation",
        "<annotations></annotations>",
        "",
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
        '<?xml version="1.0" encoding="x"?><annotation/>',
    ],
)
def test_a_malformed_file_is_told(tmp_path, content):
    (tmp_path / "bad.xml").write_text(content)
    with pytest.raises(InputError, match=r"bad\.xml"):
        FORMAT.read(str(tmp_path), "")
    write(tmp_path, "a.xml")
    found = FORMAT.read(str(tmp_path), "")
    assert [image.image for image in found.images] == ["a.jpg"]
    assert [p.file for p in found.problems] == [str(tmp_path / "bad.xml")]


def test_shares_of_the_image_are_refused(tmp_path):
    write(tmp_path, "a.xml", obj("cat", (0.1, 0.2, 0.5, 0.6)))
    with pytest.raises(InputError, match="0 to 1"):
        FORMAT.read(str(tmp_path), "")


def test_files_of_supervision_are_read(tmp_path):
    sv = pytest.importorskip("supervision")
    import numpy as np
    from PIL import Image

    (tmp_path / "images").mkdir()
    image = str(tmp_path / "images/a.png")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(image)
    detections = sv.Detections(np.array([[6, 4, 36, 24.0]]), class_id=np.array([1]))
    sv.DetectionDataset(["cat", "dog"], [image], {image: detections}).as_pascal_voc(
        annotations_directory_path=str(tmp_path / "labels")
    )
    found = FORMAT.read(str(tmp_path / "labels"), str(tmp_path / "images"))
    assert found.names == ["dog"]
    assert [(i.image, [s.box for s in i.shapes]) for i in found.images] == [
        ("a.png", [(6, 4, 36, 24)])
    ]
