"""PASCAL-VOC-style folders as other people leave them, to COCO JSON."""

import json
import zipfile

import cv2
import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO

from tests.helpers import REPOSITORY, topformer
from topformer_d2.data.prepare.voc import prepare_voc
from topformer_d2.errors import InputError


def xml(*objects, size=True):
    body = "<size><width>40</width><height>30</height></size>" if size else ""
    for name, box, *rest in objects:
        keys = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        body += f"<object><name>{name}</name>{''.join(rest)}<bndbox>"
        body += "".join(f"<{k}>{v}</{k}>" for k, v in keys) + "</bndbox></object>"
    return f"<annotation><filename>wrong.jpg</filename>{body}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """A folder in VOC's layout, four images of 40x30, lists of train and val."""
    root = tmp_path / "VOCdevkit" / "MyVOC"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    files = {
        "a": xml(("dog", (1, 1, 40, 30)), ("cat", (5, 6, 10, 10), "<difficult>1</difficult>")),
        "b": xml(
            ("dog", (7, 7, 7, 7)),  # no area
            ("dog", (41, 1, 50, 9)),  # outside
            ("cat", (30.5, 20, 60, 60), "<part><name>head</name><bndbox/></part>"),
            ("yeti", (2, 2, 4, 4)),
        ),
        "c": xml(size=False),
        "d": xml(("dog", (2, 3, 4, 5))),
    }
    for stem, content in files.items():
        (root / "Annotations" / f"{stem}.xml").write_text(content)
        suffix = ".png" if stem == "c" else ".JPG"
        cv2.imwrite(str(root / "JPEGImages" / f"{stem}{suffix}"), np.zeros((30, 40, 3), np.uint8))
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    (root / "ImageSets/Main/val.txt").write_text("d\n")
    (root / "ImageSets/Main/dog_train.txt").write_text("a 1\nb -1\n")
    return root


def read(folder, split):
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


@pytest.mark.parametrize("source", ["folder", "zip"])
def test_boxes_classes_and_splits(voc, tmp_path, source):
    path = voc
    if source == "zip":
        path = tmp_path / "voc.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in voc.rglob("*"):
                archive.write(file, file.relative_to(voc.parent.parent))
    out = tmp_path / "out"
    report = prepare_voc([str(path)], str(out))
    train, val = read(out, "train"), read(out, "val")
    assert sorted(p.name for p in (out / "annotations").iterdir()) == [
        "instances_train.json",
        "instances_val.json",
    ]
    assert train["categories"] == val["categories"]
    assert [c["name"] for c in train["categories"]] == ["cat", "dog", "yeti"]
    names = {c["id"]: c["name"] for c in train["categories"]}
    found = [
        (a["image_id"], names[a["category_id"]], a["bbox"], a["iscrowd"])
        for a in train["annotations"]
    ]
    assert found == [
        (1, "dog", [0, 0, 40, 30], 0),
        (1, "cat", [4, 5, 6, 5], 1),
        (2, "cat", [29.5, 19, 10.5, 11], 0),
        (2, "yeti", [1, 1, 3, 3], 0),
    ]
    assert [i["file_name"] for i in train["images"]] == ["a.JPG", "b.JPG", "c.png"]
    assert {(i["width"], i["height"]) for i in train["images"]} == {(40, 30)}
    assert [i["id"] for i in val["images"]] == [4]
    assert sorted(p.name for p in (out / "images").iterdir()) == [
        *("a.JPG", "b.JPG", "c.png", "d.JPG")
    ]
    assert (report.clipped, report.difficult, report.without_boxes) == (1, 1, 1)
    assert len(report.dropped) == 2 and "b: dog (7.0, 7.0, 7.0, 7.0) in 40x30" in report.dropped
    assert report.problems == []
    assert report.images == {"train": 3, "val": 1}
    assert COCO(str(out / "annotations/instances_train.json")).getAnnIds() == [1, 2, 3, 4]


def test_a_second_call_changes_nothing(voc, tmp_path):
    def content():
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.glob("out/images/*")}

    first = prepare_voc([str(voc)], str(tmp_path / "out")).summary()
    before, annotations = content(), read(tmp_path / "out", "train")
    (tmp_path / "out/images/d.JPG").unlink()
    assert prepare_voc([str(voc)], str(tmp_path / "out")).summary() == first
    after = content()
    assert after.keys() == before.keys() and read(tmp_path / "out", "train") == annotations
    assert all(after[p] == before[p] for p in before if p.stem != "d")


def test_given_classes_and_no_lists(voc, tmp_path):
    for file in (voc / "ImageSets/Main").iterdir():
        file.unlink()
    report = prepare_voc([str(voc)], str(tmp_path / "out"), ["dog", "cat"])
    content = read(tmp_path / "out", "all")
    assert [c["name"] for c in content["categories"]] == ["dog", "cat"]
    assert report.left_out == {"yeti": 1} and report.images == {"all": 4}
    with pytest.raises(InputError, match=r"no object of \['rat'\]; it has \['cat', 'dog', 'yeti'"):
        prepare_voc([str(voc)], str(tmp_path / "out"), ["rat"])


@pytest.mark.parametrize(
    ("xmin", "expected", "origin"),
    [
        (0, [0, 3, 4, 2], "edges from 0, since a box of d begins there"),
        (-2, [0, 2, 4, 3], "pixels from 1, both ends inclusive, as VOC has them"),
    ],
)
def test_the_origin_follows_from_a_zero(voc, tmp_path, xmin, expected, origin):
    (voc / "Annotations/d.xml").write_text(xml(("dog", (xmin, 3, 4, 5))))
    report = prepare_voc([str(voc)], str(tmp_path / "out"))
    assert read(tmp_path / "out", "val")["annotations"][0]["bbox"] == expected
    assert f"coordinates: {origin}" in report.summary()


def test_what_is_broken_is_listed(voc, tmp_path):
    (voc / "Annotations/a.xml").write_text("<annotation><object>")
    (voc / "Annotations/d.xml").write_text(xml(("dog", ("", 1, 2, 3))))
    image = voc / "JPEGImages/b.JPG"
    image.write_bytes(image.read_bytes()[:-40])
    (voc / "JPEGImages/c.png").unlink()
    (voc / "Annotations/e.xml").write_text(xml(("dog", (1, 1, 9, 9))))
    turned = Image.new("RGB", (40, 30))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(voc / "JPEGImages/e.jpg", exif=exif)
    (voc / "ImageSets/Main/val.txt").write_text("d\ne\nmissing\n")
    result = topformer(
        "data", "prepare", "voc_detection", "--source", voc, "--name", "mine", "--root", tmp_path
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    for part in (
        *("MyVOC/Annotations/a.xml: ", "MyVOC/Annotations/d.xml: ", "MyVOC/JPEGImages/b.JPG: "),
        *("MyVOC/Annotations/c.xml has no image", "MyVOC/JPEGImages/e.jpg: turned"),
        "val: 1 without an XML, missing among them",
    ):
        assert f"PROBLEM: {part}" in result.stdout
    assert read(tmp_path / "mine", "train")["images"] == []


def test_lists_as_people_write_them(voc, tmp_path):
    lists = voc / "ImageSets/Main"
    (lists / "train.txt").write_bytes("\ufeffa.JPG\r\nb.jpg\r\n\r\na\r\n".encode())
    (lists / "minival.txt").write_text("d\n")
    (lists / "val.txt").unlink()
    report = prepare_voc([str(voc)], str(tmp_path / "out"))
    assert report.images == {"train": 2, "minival": 1}
    assert report.problems == ["MyVOC/ImageSets/Main/train.txt lists 1 images more than once"]
    assert "no list names, left out: 1" in report.summary()
    (lists / "train.txt").write_bytes(b"\xe9\n")
    with pytest.raises(InputError, match=r"train\.txt cannot be read as UTF-8"):
        prepare_voc([str(voc)], str(tmp_path / "out"))


def test_a_changed_source_is_copied_again(voc, tmp_path):
    (voc / "Annotations/d.xml").write_text(xml(("dog", (2, 3, 4, 5)), size=False))
    prepare_voc([str(voc)], str(tmp_path / "out"))
    cv2.imwrite(str(voc / "JPEGImages/d.JPG"), np.zeros((60, 70, 3), np.uint8))
    (tmp_path / "out/images/a.JPG").write_bytes(b"damaged")
    assert prepare_voc([str(voc)], str(tmp_path / "out")).problems == []
    image = read(tmp_path / "out", "val")["images"][0]
    assert (image["width"], image["height"]) == (70, 60)
    for name in ("a.JPG", "d.JPG"):
        copied, original = tmp_path / "out/images" / name, voc / "JPEGImages" / name
        assert copied.read_bytes() == original.read_bytes()


def test_two_images_of_a_stem_and_other_folders(voc, tmp_path):
    (voc / "old/JPEGImages").mkdir(parents=True)
    cv2.imwrite(str(voc / "old/JPEGImages/a.jpg"), np.zeros((99, 99, 3), np.uint8))
    cv2.imwrite(str(voc / "JPEGImages/d.png"), np.zeros((9, 9, 3), np.uint8))
    report = prepare_voc([str(voc)], str(tmp_path / "out"))
    assert report.problems == [
        "MyVOC/JPEGImages/d.png and MyVOC/JPEGImages/d.JPG share a stem: the latter is used"
    ]
    assert {i["width"] for i in read(tmp_path / "out", "train")["images"]} == {40}


def test_an_empty_list_and_a_class_without_a_box_are_problems(voc, tmp_path):
    (voc / "ImageSets/Main/val.txt").write_text("\n")
    report = prepare_voc([str(voc)], str(tmp_path / "out"), ["dog", "cat", "rat"])
    assert report.problems == [
        "val: 0 images, of 0 in its list",
        "'rat' was asked for, and no box has it",
    ]


def test_nothing_usable_says_why(voc, tmp_path):
    (voc / "JPEGImages").rename(voc / "images")
    (voc / "Annotations/a.xml").write_text('<?xml version="1.0" encoding="foo"?><a/>')
    with pytest.raises(
        InputError, match=r"none of 4 .*\(5 problems: MyVOC/Annotations/a\.xml: .*no im"
    ):
        prepare_voc([str(voc)], str(tmp_path / "out"))


@pytest.mark.parametrize("what", ["empty", "two"])
def test_what_is_no_such_folder_is_said(voc, tmp_path, what):
    if what == "empty":
        (tmp_path / "x").mkdir()
        source, message = tmp_path / "x", "no folder Annotations"
    else:
        other = voc.parent / "Other" / "Annotations"
        other.mkdir(parents=True)
        (other / "a.xml").write_text(xml())
        source, message = voc.parent, r"2 datasets, \['VOCdevkit/MyVOC', 'VOCdevkit/Other'\]"
    with pytest.raises(InputError, match=message):
        prepare_voc([str(source)], str(tmp_path / "out"))


BCCD = REPOSITORY.parent / "shared" / "data" / "BCCD"


@pytest.mark.slow
@pytest.mark.skipif(not BCCD.is_dir(), reason="BCCD is not here")
def test_bccd(tmp_path):
    """Real files: two boxes have no area, and the classes are those that the dataset registers."""
    report = prepare_voc([str(BCCD)], str(tmp_path / "bccd"))
    assert report.problems == [] and report.clipped == 0
    assert report.images == {"train": 205, "trainval": 292, "val": 87}
    assert dict(report.boxes) == {"Platelets": 292, "RBC": 3348, "WBC": 301}
    assert [line.split(":")[0] for line in report.dropped] == [
        "BloodImage_00338",
        "BloodImage_00343",
    ]
    assert report.classes == MetadataCatalog.get("bccd_train").thing_classes
    assert len(read(tmp_path / "bccd", "val")["images"]) == 87
