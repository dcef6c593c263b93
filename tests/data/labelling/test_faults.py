"""Faults of a dataset as a whole that other tests do not have: each names its key or its file."""

import json

import pytest

from tests.data.labelling.writers import write_image, write_labelme
from topformer_d2.data.formats import Shape
from topformer_d2.data.labelling import Entry
from topformer_d2.data.labelling.drawing import shape_box
from topformer_d2.data.labelling.matching import ImageFolder
from topformer_d2.data.registered import load_records
from topformer_d2.errors import InputError


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (5, r"own is 5"),
        ({"IMAGES": "a"}, r"own has IMAGES; it takes .*LABELS"),
        ({}, r"own has no key"),
        ({"IMAGES": 3, "LABELS": "a"}, r"own\.IMAGES is 3; it takes a path"),
        ({"IMAGES": "a", "LABELS": ""}, r"own\.LABELS is ''"),
    ],
)
def test_entries_that_are_none(entry, named):
    with pytest.raises(InputError, match=rf"DATASETS\.FOLDERS\.{named}"):
        Entry.parse("own", entry)


def test_a_missing_folder_of_images_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent does not exist"):
        ImageFolder(str(tmp_path / "absent"))


def ambiguous(root):
    for folder in ("x", "y"):
        write_image(root / folder / "2.jpg")
    (root / "2.jpg").unlink()
    return "label without image", "2.json", "x/2.jpg or y/2.jpg"


def no_image(root):
    (root / "1.jpg").write_bytes(b"no image")
    return "unreadable file", "1.jpg", "1.jpg"


def other_size(root):
    write_image(root / "1.jpg", (30, 40))
    return "sizes differ", "1.jpg", "40x30"


def wide_polygon(root):
    write_labelme(root / "1.json", ("cat", 0, 0, 1e6, 5))
    return "malformed annotation", "1.json", "1000000"


@pytest.mark.parametrize("spoil", [ambiguous, no_image, other_size, wide_polygon])
def test_faults_of_one_image_are_told_with_its_file(photos, register, spoil):
    kind, file, named = spoil(photos)
    records, problems = register(IMAGES=str(photos), LABELS=str(photos)).checked_records()
    (problem,) = problems
    assert (problem.kind, problem.file) == (kind, str(photos / file))
    assert named in problem.message and len(records) == 3


def test_an_image_that_is_listed_twice_has_its_first_labels(tmp_path, register):
    write_image(tmp_path / "images/a.jpg")
    content = {
        "images": [{"id": i, "file_name": "a.jpg"} for i in (1, 2)],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": [i, 2, 5, 6]} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    entry = {"IMAGES": str(tmp_path / "images"), "BOXES": str(tmp_path / "boxes.json")}
    (record,), (problem,) = register(**entry).checked_records()
    assert record["annotations"][0]["bbox"][0] == 1
    assert problem.kind == "image labelled twice" and "a.jpg" in problem.message


def test_a_share_without_an_image_is_told(photos, register):
    register(IMAGES=str(photos), LABELS=str(photos), SHARE=[0, 0.05])
    with pytest.raises(InputError, match=r"SHARE \[0\.0, 0\.05\] leave no image of 4"):
        load_records("own")


def test_a_folder_in_the_place_of_the_index_is_named(photos, register, tmp_path):
    (tmp_path / "cache" / "index.json").mkdir(parents=True)
    register(IMAGES=str(photos), LABELS=str(photos))
    with pytest.raises(InputError, match=r"cache/index\.json .*remove it"):
        load_records("own")


def test_boxes_that_are_none():
    empty = Shape("cat", rle={"size": [4, 4], "counts": [16]})
    assert shape_box(empty, 4, 4) is None and shape_box(Shape("cat"), 4, 4) is None
    with pytest.raises(InputError, match=r"'cat' has the box .*inf"):
        shape_box(Shape("cat", (0, 0, float("inf"), 3)), 4, 4)
