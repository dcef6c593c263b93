"""Sheets of a joint model's datasets, which need not have the truth of both tasks."""

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from tests.helpers import topformer
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.config import load_config
from topformer_d2.inference import Predictor, Scene
from topformer_d2.visualization import Painter, predict_files, prediction_sheet, sample_sheet

HEADER, GAP = 24, 6
TRAIN = ("synthetic_sem_seg_train", "synthetic_boxes_train", "synthetic_multitask_train")
TEST = ("synthetic_sem_seg_val", "synthetic_boxes_val")


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """Config file of a joint model on mixed datasets, and weights that find boxes everywhere."""
    folder = tmp_path_factory.mktemp("joint")
    opts = ["DATASETS.TRAIN", str(TRAIN), "DATASETS.TRAIN_WEIGHTS", "[1, 2, 1]"]
    opts += ["DATASETS.TEST", str(TEST), "INPUT.CROP.SIZE", "[64, 64]"]
    opts += ["INPUT.MIN_SIZE_TEST", "64", "TEST.DETECTIONS_PER_IMAGE", "9"]
    cfg = get_config("multitask_lite_topformer_t_synthetic", opts)
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.head.cls_score.weight, std=50.0)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    save_state_dict(model.state_dict(), str(folder / "model.pth"))
    (folder / "config.yaml").write_text(cfg.dump())
    return str(folder / "config.yaml"), str(folder / "model.pth")


def cell(sheet, row, column, height=64, width=80):
    top, left = HEADER + row * (height + GAP), GAP + column * (width + GAP)
    return sheet[top : top + height, left : left + width]


@pytest.mark.parametrize(
    ("dataset", "tasks"),
    [
        ("synthetic_sem_seg_train", ("sem_seg",)),
        ("synthetic_boxes_val", ("instances",)),
        ("synthetic_multitask_val", ("sem_seg", "instances")),
    ],
)
def test_what_the_dataset_has_is_drawn(joint, dataset, tasks):
    cfg = load_config(joint[0])
    sheet, files = sample_sheet(cfg, dataset, 2)
    record = DatasetCatalog.get(dataset)[0]
    image = cell(sheet, 0, 0)
    assert files[0] == record["file_name"]
    assert np.array_equal(image, cv2.imread(files[0])[:, :, ::-1])
    scene = Scene.from_record(record, tasks)
    drawn = Painter(cfg, dataset).draw(np.ascontiguousarray(image), scene, opacity=0.7)
    assert np.array_equal(cell(sheet, 0, 1), drawn) and not np.array_equal(drawn, image)
    # The legend is of pixels; boxes bear their names.
    assert (sheet.shape[1] > 2 * (80 + GAP) + GAP) == ("sem_seg" in tasks)
    sheet, _ = sample_sheet(cfg, dataset, 2, draws=2)
    assert (sheet.shape[1] > 4 * (64 + GAP) + GAP) == ("sem_seg" in tasks)
    assert not np.array_equal(cell(sheet, 0, 0, 60, 64), cell(sheet, 0, 1, 60, 64))


@pytest.mark.parametrize("arguments", [[], ["--dataset", "synthetic_boxes_train", "--augmented"]])
def test_the_tool_draws_one_dataset_of_several(joint, tmp_path, arguments):
    output = ["--config-file", joint[0], "--output", tmp_path / "sheet.png"]
    result = topformer("data", "view", *output, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("row 1: ") and (tmp_path / "sheet.png").exists()


def test_images_with_and_without_a_label_stand_in_one_sheet(joint, monkeypatch):
    records = DatasetCatalog.get("synthetic_multitask_val")[:2]
    both = ("sem_seg", "instances")
    without = {k: v for k, v in records[0].items() if k != "sem_seg_file_name"}
    records = [{**without, "tasks": ("instances",)}, {**records[1], "tasks": both}]
    monkeypatch.setattr("topformer_d2.visualization.samples.load_records", lambda _: records)
    cfg = load_config(joint[0])
    sheet, _ = sample_sheet(cfg, "synthetic_multitask_val", 2)
    legends = [sheet[y : y + 64, 2 * (80 + GAP) + GAP :] for y in (HEADER, HEADER + 64 + GAP)]
    assert (legends[0] == 255).all() and not (legends[1] == 255).all()
    assert sample_sheet(cfg, "synthetic_multitask_val", 2, draws=2)[0].shape[0] == sheet.shape[0]


@pytest.mark.parametrize("dataset", TEST)
def test_predictions_of_both_stand_beside_the_truth_that_there_is(joint, dataset):
    cfg = load_config(joint[0])
    predictor = Predictor(cfg, joint[1])
    sheet = prediction_sheet(predictor, dataset, 2, min_score=0.0)
    record = DatasetCatalog.get(dataset)[0]
    image = cv2.imread(record["file_name"])
    rgb = image[:, :, ::-1].repeat(4, axis=0).repeat(4, axis=1)  # so that names leave it visible
    painter = Painter(cfg, dataset)
    # Names of either kind, from whichever of the test datasets has them.
    assert (painter.info.pixels.dataset, painter.info.objects.dataset) == TEST
    truth = Scene.from_record(record, ("sem_seg",) if dataset == TEST[0] else ("instances",))
    found = predictor(image)
    assert found.label is not None and len(found.boxes) == 9
    for column, scene in ((1, truth), (2, found)):
        drawn = painter.draw(rgb, scene.enlarged(4), opacity=0.7)
        assert np.array_equal(cell(sheet, 0, column, 256, 320), drawn)
    legend = sheet[HEADER : HEADER + 256, 3 * (320 + GAP) + GAP :]
    most = np.bincount(found.label.reshape(-1)).argmax()
    assert (legend == MetadataCatalog.get(TEST[0]).stuff_colors[most]).all(-1).sum() > 30


def test_the_tool_draws_predictions(joint, tmp_path):
    result = topformer(
        *("data", "view", "--config-file", joint[0], "--weights", joint[1]),
        *("--output", tmp_path / "sheet.png", "--num-images", "2", "--min-score", "0.0"),
    )
    assert result.returncode == 0, result.stderr
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[0] == HEADER + 2 * (256 + GAP)


def test_boxes_as_json_have_the_ids_of_the_test_dataset_with_boxes(joint, tmp_path):
    predictor = Predictor(load_config(joint[0]), joint[1])
    records = DatasetCatalog.get(TEST[1])[:2]
    out = tmp_path / "boxes.jsonl"
    files = [r["file_name"] for r in records]
    predict_files(predictor, files, str(tmp_path / "out"), json_file=str(out))
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert {r["image_id"] for r in found} == {r["image_id"] for r in records}
    assert {r["category_id"] for r in found} <= {1, 2, 3, 4, 5} and len(found) == 18
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == [f"000{n}_{kind}" for n in (12, 13) for kind in ("label.png", "overlay.jpg")]


def test_a_config_without_training_data_needs_a_name(joint, tmp_path):
    arguments = ["--config-file", joint[0], "--output", tmp_path / "sheet.png"]
    result = topformer("data", "view", *arguments, "DATASETS.TRAIN", "()")
    assert result.returncode == 1 and "DATASETS.TRAIN is empty: name a --dataset" in result.stderr
