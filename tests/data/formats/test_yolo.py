"""YOLO's text files, as tools write them and as they go wrong."""

import pytest

from topformer_d2.data.formats.yolo import FORMAT
from topformer_d2.errors import InputError

YAML = "path: ../set\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: no\n  3: '007'\n"


@pytest.fixture
def dataset(tmp_path):
    """Ultralytics' layout, with images a, b and c of which c has no labels."""
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
    for name in ("a.jpg", "b.png", "c.jpg"):
        (tmp_path / "images/train" / name).touch()
    (tmp_path / "images/val/d.jpg").touch()
    (tmp_path / "data.yaml").write_text(YAML)
    (tmp_path / "labels/train/a.txt").write_text(
        "0 0.5 0.5 0.2 0.4\n3 0.1 0.1 0.5 0.1 0.5 0.6\n\n1 0 0 1 0 1 1 0 1.0000001\n"
    )
    (tmp_path / "labels/train/b.txt").write_text("")
    (tmp_path / "labels/val/d.txt").write_text("1.0 0.5 0.5 1 1\n")
    return tmp_path


def summary(found):
    return [(image.image, [s.label for s in image.shapes]) for image in found.images]


@pytest.mark.parametrize("path", ["data.yaml", "labels/train", "labels", ""])
def test_a_dataset_of_boxes_and_polygons(dataset, path):
    path, images = str(dataset / path), str(dataset / "images/train")
    assert FORMAT.detect(path, images)
    found = FORMAT.read(path, images)
    assert found.names == ["cat", "no", "007"]
    assert summary(found) == [("a.jpg", ["cat", "007", "no"]), ("b.png", []), ("c.jpg", [])]
    assert not found.problems
    image = found.images[0]
    assert image.is_relative and image.width is None
    assert image.source == str(dataset / "labels/train/a.txt")
    box, triangle, square = image.shapes
    assert box.box == pytest.approx((0.4, 0.3, 0.6, 0.7)) and box.polygons == ()
    assert triangle.polygons == ((0.1, 0.1, 0.5, 0.1, 0.5, 0.6),) and triangle.box is None
    assert square.polygons == ((0, 0, 1, 0, 1, 1, 0, 1),)
    assert summary(
        FORMAT.read(
            path if path.endswith("yaml") else str(dataset / "labels/val"),
            str(dataset / "images/val"),
        )
    ) == [("d.jpg", ["no"])]


@pytest.mark.parametrize("names_file", ["classes.txt", "obj.names", "_darknet.labels"])
@pytest.mark.parametrize("where", [".", "images/train"])
def test_labels_beside_the_images(tmp_path, names_file, where):
    """Darknet's layout."""
    folder = tmp_path / "images/train"
    folder.mkdir(parents=True)
    (folder / "a.jpg").touch()
    (folder / "a.txt").write_text("1 0.5 0.5 0.2 0.4")
    (folder / "train.txt").write_text("data/obj/a.jpg")
    (tmp_path / where / names_file).write_text("cat\ndog\n\n")
    assert FORMAT.detect(str(folder), str(folder))
    found = FORMAT.read(str(folder), str(folder))
    assert found.names == ["cat", "dog"] and summary(found) == [("a.jpg", ["dog"])]


def test_without_names_the_numbers_are_the_names(dataset):
    (dataset / "data.yaml").unlink()
    found = FORMAT.read(str(dataset / "labels/train"), "")
    assert found.names == ["0", "1", "3"]
    # No images are known, so each file is one's.
    assert summary(found) == [("a", ["0", "3", "1"]), ("b", [])]


def test_key_points_are_told_and_their_boxes_used(dataset):
    (dataset / "data.yaml").write_text(YAML + "kpt_shape: [2, 3]\n")
    (dataset / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.4 0.4 0.4 2 0.6 0.6 1\n")
    found = FORMAT.read(str(dataset / "data.yaml"), str(dataset / "images/train"))
    assert found.images[0].shapes[0].box == pytest.approx((0.4, 0.3, 0.6, 0.7))
    assert [p.kind for p in found.problems] == ["annotation not used"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("0 0.5 0.5 0.2", "3 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.93", "confidence"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.6 0.9", "7 numbers"),
        ("0 50 50 20 40", "percent"),
        ("0 320 240 100 50", "pixels"),
        ("0 -0.5 0.5 0.2 0.2", "0 to 1"),
        ("0 0.5 0.5 -0.005 0.2", "negative"),
        ("2 0.5 0.5 0.2 0.2", "class 2"),
        ("9999999999 0.5 0.5 0.2 0.2", "class"),
        ("-1 0.5 0.5 0.2 0.2", "class"),
        ("0.5 0.5 0.5 0.2 0.2", "class"),
        ("cat 0.5 0.5 0.2 0.2", "class"),
        ("0 0.5 nan 0.2 0.2", "nan"),
        ("0 0.5 1e400 0.2 0.2", "inf"),
        ("0 0.5 0,5 0.2 0.2", "0,5"),
    ],
)
def test_a_malformed_line_is_told_and_left_out(dataset, line, named):
    (dataset / "labels/train/a.txt").write_text(f"1 0.5 0.5 0.2 0.2\n{line}\n")
    found = FORMAT.read(str(dataset / "data.yaml"), str(dataset / "images/train"))
    assert summary(found)[0] == ("a.jpg", ["no"])
    (problem,) = found.problems
    assert problem.kind == "malformed annotation" and problem.file.endswith("a.txt")
    assert "line 2" in problem.message and named in problem.message


def test_a_file_that_is_no_text_is_told_and_its_image_left_out(dataset):
    (dataset / "labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    found = FORMAT.read(str(dataset / "data.yaml"), str(dataset / "images/train"))
    assert summary(found) == [("b.png", []), ("c.jpg", [])]
    assert [p.file for p in found.problems] == [str(dataset / "labels/train/a.txt")]


@pytest.mark.parametrize(
    "content",
    [
        "names: 3\ntrain: a",
        "names: {cat: 0}\ntrain: a",
        "names: []\ntrain: a",
        "names: ['']\ntrain: a",
        "names: [[a]]\ntrain: a",
        "- a",
        "names: [",
        "a: " + "[" * 1000,
    ],
)
def test_a_wrong_yaml_is_refused(dataset, content):
    (dataset / "data.yaml").write_text(content)
    with pytest.raises(InputError, match=r"data\.yaml"):
        FORMAT.read(str(dataset / "data.yaml"), str(dataset / "images/train"))


def test_a_yaml_runs_no_code(dataset):
    (dataset / "data.yaml").write_text(
        f"names: !!python/object/apply:os.mkdir ['{dataset}/made']\nnc: 1\n"
    )
    FORMAT.read(str(dataset / "data.yaml"), str(dataset / "images/train"))
    assert not (dataset / "made").exists()


@pytest.mark.parametrize("path", ["data.yaml", "labels/train", "images/train"])
def test_a_folder_without_labels_is_refused(dataset, path):
    for name in ("a", "b"):
        (dataset / f"labels/train/{name}.txt").unlink()
    assert not FORMAT.detect(str(dataset / "labels/train"), str(dataset / "images/train"))
    with pytest.raises(InputError, match=r"\.txt"):
        FORMAT.read(str(dataset / path), str(dataset / "images/train"))


def test_files_of_supervision_are_read(tmp_path):
    sv = pytest.importorskip("supervision")
    import numpy as np
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "images/a.png")
    detections = sv.Detections(np.array([[6, 4, 36, 24.0]]), class_id=np.array([1]))
    sv.DetectionDataset(
        ["cat", "dog"],
        [str(tmp_path / "images/a.png")],
        {str(tmp_path / "images/a.png"): detections},
    ).as_yolo(
        annotations_directory_path=str(tmp_path / "labels"), data_yaml_path=str(tmp_path / "d.yaml")
    )
    assert FORMAT.detect(str(tmp_path / "d.yaml"), str(tmp_path / "images"))
    for path in ("d.yaml", "labels"):
        found = FORMAT.read(str(tmp_path / path), str(tmp_path / "images"))
        assert found.names == ["cat", "dog"] and summary(found) == [("a.png", ["dog"])]
        assert found.images[0].shapes[0].box == pytest.approx((0.1, 0.1, 0.6, 0.6), abs=1e-4)
