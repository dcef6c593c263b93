"""Sheets of samples, raw and as the model gets them."""

import json
import random
import re

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from tests.helpers import exported, save_untrained, topformer
from topformer_d2.data.loader import build_train_loader
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.data.registered import spread_evenly
from topformer_d2.errors import InputError
from topformer_d2.inference import Scene
from topformer_d2.visualization import Painter, sample_sheet

HEADER, GAP = 24, 6
CROP = 64


def first_row(sheet, column, height, width):
    left = GAP + column * (width + GAP)
    return sheet[HEADER : HEADER + height, left : left + width]


def test_raw_samples_are_the_files(tiny_config):
    sheet, files = sample_sheet(tiny_config(), "synthetic_sem_seg_val", 3)
    records = DatasetCatalog.get("synthetic_sem_seg_val")
    assert files == [records[i]["file_name"] for i in (0, 2, 3)]
    assert sheet.shape[0] == HEADER + 3 * (64 + GAP) and sheet.shape[1] > 2 * (80 + GAP) + GAP
    image = cv2.imread(files[0])[:, :, ::-1]
    assert np.array_equal(first_row(sheet, 0, 64, 80), image)
    painter = Painter(tiny_config())
    truth = painter.draw(image, Scene.from_record(records[0], ("sem_seg",)), opacity=0.7)
    assert np.array_equal(first_row(sheet, 1, 64, 80), truth)
    ground = np.array(painter.info.pixels.colors[0])
    legend = sheet[HEADER : HEADER + 64, 2 * (80 + GAP) + GAP :]
    assert (legend == ground).all(-1).sum() > 30


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_augmented_samples_are_what_the_mapper_gives(tiny_config, image_format):
    cfg = tiny_config("INPUT.FORMAT", image_format)
    sheet, _ = sample_sheet(cfg, "synthetic_sem_seg_train", 2, draws=3, seed=7)
    record = spread_evenly(DatasetCatalog.get("synthetic_sem_seg_train"), 2)[0]
    mapper, painter = TaskMapper(cfg, is_train=True), Painter(cfg, "synthetic_sem_seg_train")
    images = []
    for draw in range(3):
        state = np.random.SeedSequence([7, draw]).generate_state(2)
        np.random.seed(state[0])
        random.seed(int(state[1]))
        sample = mapper(record)
        image = sample["image"].numpy().transpose(1, 2, 0)
        image = np.ascontiguousarray(image if image_format == "RGB" else image[:, :, ::-1])
        images.append(image)
        assert image.shape[0] <= CROP and image.shape[1] == CROP
        assert np.array_equal(first_row(sheet, 2 * draw, len(image), CROP), image)
        truth = painter.draw(image, Scene.from_sample(sample), opacity=0.7)
        assert np.array_equal(first_row(sheet, 2 * draw + 1, len(image), CROP), truth)
    assert not np.array_equal(images[0], images[1])
    again, _ = sample_sheet(cfg, "synthetic_sem_seg_train", 2, draws=3, seed=7)
    other, _ = sample_sheet(cfg, "synthetic_sem_seg_train", 2, draws=3, seed=8)
    assert np.array_equal(sheet, again) and (sheet.shape != other.shape or (sheet != other).any())


def test_they_are_what_training_gets(tiny_config, monkeypatch):
    """Position 0 of the training stream, whichever image is there, is the first draw of it."""
    cfg = tiny_config("SEED", "5", "SOLVER.IMS_PER_BATCH", "1")
    sample = next(iter(build_train_loader(cfg)))[0]
    records = DatasetCatalog.get("synthetic_sem_seg_train")
    chosen = [r for r in records if r["file_name"] == sample["file_name"]]
    monkeypatch.setattr("topformer_d2.visualization.samples.load_records", lambda _: chosen)
    sheet, _ = sample_sheet(cfg, "synthetic_sem_seg_train", 1, draws=1, seed=5)
    image = sample["image"].numpy().transpose(1, 2, 0)
    assert np.array_equal(first_row(sheet, 0, *image.shape[:2]), image)


def test_a_mosaic_is_of_any_images_of_the_dataset(tiny_config):
    cfg = tiny_config("INPUT.MOSAIC.PROB", "1.0", "INPUT.CROP.ENABLED", "False")
    cfg.INPUT.RANDOM_FLIP = "none"
    sheet, (file,) = sample_sheet(cfg, "synthetic_sem_seg_train", 1, draws=1, seed=2)
    image, original = first_row(sheet, 0, 64, 80), cv2.imread(file)[:, :, ::-1]
    corners = [(slice(a, a + 12), slice(b, b + 12)) for a in (0, 52) for b in (0, 68)]
    found = [
        cv2.matchTemplate(original, np.ascontiguousarray(image[c]), cv2.TM_SQDIFF).min() < 1
        for c in corners
    ]
    assert found[0] and not all(found)


def test_boxes_are_drawn(tiny_detector):
    cfg = tiny_detector("INPUT.COLOR_AUG_SSD", "False")
    for draws in (0, 2):
        sheet, _ = sample_sheet(cfg, "synthetic_boxes_val", 1, draws=draws)
        width = CROP if draws else 80
        image, truth = (first_row(sheet, column, 50, width).astype(int) for column in (0, 1))
        assert (np.abs(image - truth).max(-1) > 40).sum() > 30
    sample = TaskMapper(cfg, is_train=True, augmentations=[])(
        DatasetCatalog.get("synthetic_boxes_val")[0]
    )
    scene = Scene.from_sample(sample)
    assert scene.label is None and scene.scores is None
    truth = Scene.from_record(DatasetCatalog.get("synthetic_boxes_val")[0], ("instances",))
    assert np.array_equal(scene.boxes, truth.boxes) and np.array_equal(scene.classes, truth.classes)


def test_a_label_that_does_not_fit_is_named(tiny_config, tmp_path, monkeypatch):
    record = dict(DatasetCatalog.get("synthetic_sem_seg_val")[0])
    record["sem_seg_file_name"] = str(tmp_path / "small.png")
    cv2.imwrite(record["sem_seg_file_name"], np.zeros((64, 79), np.uint8))
    monkeypatch.setattr("topformer_d2.visualization.samples.load_records", lambda _: [record])
    with pytest.raises(InputError, match=r"its label .*small\.png \(64, 79\)"):
        sample_sheet(tiny_config(), "synthetic_sem_seg_val", 1)


def test_the_tool(tmp_path, synthetic_dataset):
    arguments = ["--config-file", "configs/seg_topformer_t_synthetic.yaml", "--augmented"]
    arguments += ["--dataset", "synthetic_sem_seg_val", "--num-images", "2", "--seed", "3"]
    small = ["INPUT.CROP.SIZE", "[64, 64]"]
    result = topformer("data", "view", *arguments, "--output", tmp_path / "sheet.png", *small)
    assert result.returncode == 0, result.stderr
    assert f"row 2: {synthetic_dataset}/images/val/00015.png\nwrote {tmp_path}" in result.stdout
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] > 6 * (CROP + GAP)
    result = topformer("data", "view", *arguments, "--output", tmp_path / "sheet", *small)
    assert result.returncode == 1 and "the name of a picture ends in" in result.stderr


@pytest.fixture
def photos(tmp_path):
    """LabelMe's files of a square beside their images."""
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(3):
        cv2.imwrite(str(root / f"{i}.png"), np.full((60, 80, 3), 9, np.uint8))
        points = [[20, 20], [60, 20], [60, 50], [20, 50]]
        shapes = [{"label": "cat", "shape_type": "polygon", "points": points}]
        (root / f"{i}.json").write_text(json.dumps({"shapes": shapes, "imagePath": f"{i}.png"}))
    return root


@pytest.mark.parametrize("key", ["--labels", "--boxes"])
def test_images_and_labels_are_drawn_without_a_config(tmp_path, photos, key):
    sheet = tmp_path / "sheet.png"
    words = ["data", "view", "--images", photos, key, photos, "--output", sheet]
    result = topformer(*words, "--num-images", 2)
    assert result.returncode == 0, result.stderr
    assert f"row 2: {photos}/2.png" in result.stdout
    drawn = cv2.imread(str(sheet))
    assert drawn.shape[0] == HEADER + 2 * (60 + GAP)
    assert (first_row(drawn, 0, 60, 80) == 9).all()
    truth = (first_row(drawn, 1, 60, 80) != 9).any(-1)
    assert truth[20:50, 20:60].sum() > 50 and (key == "--labels" or not truth[:5].any())
    assert "folder" not in DatasetCatalog.list() and len(list(photos.iterdir())) == 6


def test_predictions_beside_labels_without_a_config(tmp_path, photos, tiny_config):
    cfg = tiny_config()
    weights = save_untrained(cfg, tmp_path / "model.pth")
    model = exported(cfg, weights, tmp_path / "model.onnx")
    words = ["data", "view", "--model", model, "--images", photos, "--output", tmp_path / "s.png"]
    result = topformer(*words, "--labels", photos)
    assert result.returncode == 1 and "['background', 'cat']" in result.stderr
    (tmp_path / "six.txt").write_text("background\ncat\na\nb\nc\nd\n")
    result = topformer(*words, "--labels", photos, "--classes", tmp_path / "six.txt")
    assert result.returncode == 0, result.stderr
    assert cv2.imread(str(tmp_path / "s.png")).shape[1] > 3 * (80 + GAP)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--config-file"),
        (["--images", "x"], "--labels"),
        (["--images", "x", "--labels", "x", "--augmented"], "--augmented"),
        (["--images", "x", "--labels", "x", "--config-file", "c.yaml"], "--config-file|--images"),
        (["--images", "x", "--labels", "x"], "--labels"),
    ],
)
def test_what_goes_with_images_is_told(tmp_path, words, named):
    result = topformer("data", "view", "--output", tmp_path / "sheet.png", *words)
    assert result.returncode in (1, 2) and re.search(named, result.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--min-score", "0.9"], "--min-score is of predictions"),
        (["--weights", "w.pth", "--min-score", "2"], "--min-score is 2.0; it takes 0 to 1"),
        (["--seed", "3"], "--seed is of --augmented"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, words, named):
    config = ["--config-file", "configs/seg_topformer_t_synthetic.yaml"]
    result = topformer("data", "view", *config, "--output", tmp_path / "sheet.png", *words)
    assert result.returncode == 1 and named in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_picture_does_not_replace_a_file_of_the_dataset(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    files = [tmp_path / "images/a.png", tmp_path / "labels/a.png"]
    for file in files:
        cv2.imwrite(str(file), np.zeros((8, 9, 3 if file.parent.name == "images" else 1), np.uint8))
    (tmp_path / "classes.txt").write_text("road\n")
    words = ["--images", files[0].parent, "--labels", files[1].parent]
    words += ["--classes", tmp_path / "classes.txt", "--output"]
    (tmp_path / "link.png").symlink_to(files[0])
    for target in (*files, tmp_path / "link.png"):
        before = target.read_bytes()
        result = topformer("data", "view", *words, target)
        assert result.returncode == 1 and f"--output {target} is a file" in result.stderr
        assert target.read_bytes() == before
    assert topformer("data", "view", *words, tmp_path / "sheet.png").returncode == 0
