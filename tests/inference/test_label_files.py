"""Predictions as labels of labelling tools, read back by the readers of the same formats."""

import json
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.helpers import photo
from topformer_d2.data.class_table import ClassTable
from topformer_d2.data.formats import FORMATS
from topformer_d2.data.formats.contract import BACKGROUND
from topformer_d2.data.images import read_image
from topformer_d2.data.labelling.drawing import draw, to_pixels
from topformer_d2.data.outlines import outlines
from topformer_d2.data.scene import Scene
from topformer_d2.errors import InputError
from topformer_d2.inference import write_predictions
from topformer_d2.inference.label_files import WRITERS
from topformer_d2.inference.model_info import ModelInfo

HEIGHT, WIDTH = 150, 200
PIXELS = ("background", "road", "car: 2", "тротуар")
OBJECTS = ("car: 2", "person")
BOXES = np.array([[10.25, 20.5, 60.125, 80], [0, 0, 200, 150], [100, 20, 120.7, 60.3]], np.float32)


def info(tasks):
    def table(name, names, ids=None):
        return ClassTable(names, ((0, 0, 0),) * len(names), ids) if name in tasks else ClassTable()

    return ModelInfo(
        tasks=tasks,
        pixels=table("sem_seg", PIXELS),
        objects=table("instances", OBJECTS, (7, 3)),
        **{"image_format": "BGR", "pixel_mean": (0,) * 3, "pixel_std": (1,) * 3},
        **{"short_side": 0, "long_side": 1000, "size_divisor": 1},
    )


def label_map(seed=0):
    """Regions with holes, some of background."""
    g = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(g.standard_normal((HEIGHT, WIDTH)), (0, 0), 9) for _ in PIXELS]
    label = np.stack(noise).argmax(axis=0).astype(np.uint8)
    label[40:110, 50:150] = 1
    label[60:80, 70:90] = 0
    label[62:70, 72:80] = 2
    return label


class Model:
    """Predicts the same in each image."""

    def __init__(self, *tasks):
        self.info, self.backend = info(tasks), SimpleNamespace(batch=2)
        self.label = label_map() if "sem_seg" in tasks else None
        self.boxes = BOXES if "instances" in tasks else BOXES[:0]

    def __call__(self, images):
        return [
            Scene(
                label=self.label,
                boxes=self.boxes,
                classes=[0, 1, 1][: len(self.boxes)],
                scores=[0.9, 0.5, 0.2][: len(self.boxes)],
                size=image.shape[:2],
            )
            for image in images
        ]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return [str(photo(folder / name, HEIGHT, WIDTH)) for name in ("a b.jpg", "c.png")]


def read_back(kind, output, photos):
    """(names of the classes, the shapes of the first image in pixels)."""
    path = {"coco": "annotations.json"}.get(kind, "labels")
    path, images = os.path.join(output, path), os.path.dirname(photos[0])
    assert FORMATS[kind].detect(path, images)
    found = FORMATS[kind].read(path, images)
    assert not found.problems
    assert [os.path.basename(each.image) for each in found.images] == ["a b.jpg", "c.png"]
    return found.names, to_pixels(found.images[0], HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("tasks", [("instances",), ("sem_seg", "instances")])
def test_boxes_are_read_back(kind, tasks, tmp_path, photos):
    out = str(tmp_path / "out")
    assert not write_predictions(Model(*tasks), photos, out, label_format=kind, min_score=0.3)
    _, shapes = read_back(kind, out, photos)
    boxes = [(s.label, *s.box) for s in shapes if not s.polygons]
    assert sorted(label for label, *_ in boxes) == ["car: 2", "person"]
    found = {label: box for label, *box in boxes}
    assert found["car: 2"] == pytest.approx(BOXES[0].tolist(), abs=1e-3)
    assert found["person"] == pytest.approx(BOXES[1].tolist(), abs=1e-3)


@pytest.mark.parametrize("kind", WRITERS)
def test_label_maps_are_read_back(kind, tmp_path, photos):
    out, model = str(tmp_path / "out"), Model("sem_seg")
    assert not write_predictions(model, photos, out, label_format=kind)
    names, shapes = read_back(kind, out, photos)
    assert set(names) - {BACKGROUND} == set(PIXELS[1:])
    assert BACKGROUND not in {shape.label for shape in shapes}
    drawn = draw([(s, PIXELS.index(s.label)) for s in shapes], HEIGHT, WIDTH, 0)
    assert (drawn == model.label).mean() >= 0.99
    # The hole is background, and what lies in the hole is not.
    assert drawn[75, 85] == 0 and drawn[66, 76] == 2


def test_regions_of_both_tasks_are_read_back(tmp_path, photos):
    out, model = str(tmp_path / "out"), Model("sem_seg", "instances")
    write_predictions(model, photos, out, label_format="labelme")
    shapes = read_back("labelme", out, photos)[1]
    regions = [(s, PIXELS.index(s.label)) for s in shapes if s.polygons]
    assert (draw(regions, HEIGHT, WIDTH, 0) == model.label).mean() >= 0.99


def test_an_outline_follows_the_edges_of_pixels():
    mask = np.zeros((20, 30), bool)
    mask[2:12, 3:25] = True
    mask[5:9, 8:12] = False
    mask[15, 28] = True
    large, small = outlines(mask)
    assert set(map(tuple, large.tolist())) == {
        *((3, 2), (25, 2), (25, 12), (3, 12)),
        *((8, 5), (12, 5), (12, 9), (8, 9)),
    }
    assert (small.min(), small.max(), len(outlines(mask, 2))) == (15, 29, 1)
    assert outlines(mask[:2]) == []
    filled = outlines(mask, 17)
    assert len(filled) == 1 and len(filled[0]) == 4


def test_files_name_the_images_and_hold_scores(tmp_path, photos):
    model = Model("instances")
    for kind in WRITERS:
        write_predictions(model, photos, tmp_path / kind, label_format=kind, min_score=0)
    content = json.loads((tmp_path / "labelme" / "labels" / "a b.json").read_text())
    assert content["imagePath"] == "../../images/a b.jpg" and content["imageData"] is None
    assert [s["score"] for s in content["shapes"]] == pytest.approx([0.9, 0.5, 0.2])
    content = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert [c["id"] for c in content["categories"]] == [7, 3]
    assert [a["category_id"] for a in content["annotations"]] == [7, 3, 3] * 2
    assert content["annotations"][0]["score"] == pytest.approx(0.9)
    assert (tmp_path / "yolo" / "classes.txt").read_text().splitlines() == list(OBJECTS)
    lines = (tmp_path / "yolo" / "labels" / "c.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "1"]


@pytest.mark.parametrize("kind", WRITERS)
def test_earlier_labels_are_not_overwritten(kind, tmp_path, photos):
    out = tmp_path / "out"
    write_predictions(Model("instances"), photos, out, label_format=kind)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"exists, and may have been corrected by hand"):
        write_predictions(Model("instances"), photos, out, label_format=kind, min_score=0)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_names_that_do_not_fit_are_refused(tmp_path, photos):
    photos.append(str(photo(tmp_path / "images" / "c.jpg")))
    with pytest.raises(InputError, match=r"c\.png shares with another"):
        write_predictions(Model("instances"), photos, tmp_path / "out", label_format="yolo")
    with pytest.raises(InputError, match=r"'labelmee' .*labelme.*; it takes labelme, yolo, coco"):
        write_predictions(Model("instances"), photos, tmp_path / "out", label_format="labelmee")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", WRITERS)
def test_where_no_image_is_done_there_are_no_label_files(kind, tmp_path, photos):
    def interrupt(image, scene):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Model("instances"), photos, out, label_format=kind, draw=interrupt)
    assert not [path for path in out.rglob("*") if path.is_file()]
    assert not write_predictions(Model("instances"), photos, out, label_format=kind)


@pytest.mark.parametrize("kind", WRITERS)
def test_ctrl_c_leaves_whole_files_of_the_images_that_are_done(kind, tmp_path, photos):
    def interrupt(image, scene):
        if (image == read_image(photos[1])).all():
            raise KeyboardInterrupt
        return image

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Model("instances"), photos, out, label_format=kind, draw=interrupt)
    if kind == "coco":
        content = json.loads((out / "annotations.json").read_text())
        assert [image["file_name"] for image in content["images"]] == ["a b.jpg"]
    else:
        (labels,) = out.rglob("a b.json" if kind == "labelme" else "a b.txt")
        assert labels.stat().st_size and not [*out.rglob("c.json"), *out.rglob("c.txt")]
    assert not [*out.rglob("*.partial")]


def test_supervision_reads_them(tmp_path, photos):
    sv = pytest.importorskip("supervision")
    for kind in ("yolo", "coco"):
        write_predictions(Model("instances"), photos, tmp_path / kind, label_format=kind)
    images = os.path.dirname(photos[0])
    yolo = sv.DetectionDataset.from_yolo(
        images, str(tmp_path / "yolo" / "labels"), str(tmp_path / "yolo" / "data.yaml")
    )
    coco = sv.DetectionDataset.from_coco(images, str(tmp_path / "coco" / "annotations.json"))
    assert yolo.classes == list(OBJECTS)
    for dataset in (yolo, coco):
        found = dataset.annotations[photos[0]]
        assert found.xyxy == pytest.approx(BOXES[:2], abs=1e-2)
        assert [dataset.classes[i] for i in found.class_id] == list(OBJECTS)
