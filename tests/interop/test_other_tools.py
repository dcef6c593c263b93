"""SAHI, supervision and FastAPI on models of ours, as docs/other_tools.md shows them."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from tests.helpers import REPOSITORY, photo, save_untrained
from topformer_d2 import Predictor, Scene, add_topformer_config, get_config
from topformer_d2.config import complete_config, config_folder, load_config
from topformer_d2.data import check_config
from topformer_d2.engine import Trainer
from topformer_d2.engine.solver import WarmupPoly

NAMES = ["disc", "square", "triangle", "cross", "ring"]


@pytest.fixture
def trained(tiny_detector, tmp_path):
    """A detector's config.yaml as a run dumps it, and its weights."""
    cfg = tiny_detector("DATASETS.TRAIN", "('gone_train',)", "DATASETS.TEST", "('gone_val',)")
    cfg.DATASETS.THING_CLASSES = NAMES
    (tmp_path / "config.yaml").write_text(cfg.dump())
    yield str(tmp_path / "config.yaml"), save_untrained(cfg, tmp_path / "model_final.pth")
    for name in ("gone_train", "gone_val"):
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)


def test_sahi_slices_with_the_class_names_of_the_config(trained, tmp_path):
    predict = pytest.importorskip("sahi.predict")
    from sahi import AutoDetectionModel

    config, weights = trained
    model = AutoDetectionModel.from_pretrained(
        model_type="detectron2",
        config_path=config,
        model_path=weights,
        confidence_threshold=0.5,
        device="cpu",
        image_size=64,
    )
    assert model.category_names == NAMES
    found = predict.get_sliced_prediction(
        photo(tmp_path / "a.png", 90, 150), model, slice_height=64, slice_width=64, verbose=0
    ).object_prediction_list
    assert len(found) > 9
    assert {each.category.name for each in found} <= set(NAMES)
    boxes = np.array([each.bbox.to_xyxy() for each in found])
    assert boxes.min() >= 0 and boxes[:, 2].max() <= 150 and boxes[:, 3].max() <= 90
    assert boxes[:, 2].max() > 80  # of the second slice


SHIPPED = [
    "seg_topformer_t_synthetic",
    "det_retinanet_lite_topformer_t_bccd",
    "det_retinanet_topformer_t",
    "multitask_lite_topformer_t_synthetic",
    "baseline_deeplabv3plus_mobilenetv2",
    "baseline_retinanet_shufflenetv2",
    "baseline_semantic_fpn_mobilenetv2",
    "baseline_segformer_mit_b0",
    "baseline_fcn8s_mobilenetv2",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_merged_without_our_keys_builds_the_same_model(name):
    cfg = get_cfg()
    cfg.set_new_allowed(True)  # SAHI's way
    cfg.merge_from_file(str(config_folder() / f"{name}.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    assert not hasattr(cfg.MODEL, "MULTITASK") or "multitask" in name
    ours = get_config(name, ["MODEL.DEVICE", "cpu"])
    completed = complete_config(cfg)
    assert completed.MODEL == ours.MODEL and completed.SOLVER == ours.SOLVER
    assert completed.MODEL.DEVICE == "cpu" and complete_config(completed) is completed
    states = [build_model(each).state_dict() for each in (cfg, ours)]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    assert shapes[0] == shapes[1]


def test_our_trainer_takes_a_config_without_our_keys(tmp_path):
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.merge_from_file(str(config_folder() / "seg_topformer_t_synthetic.yaml"))
    small = ["INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64", "MODEL.DEVICE", "cpu"]
    small += ["DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1"]
    cfg.merge_from_list([*small, "OUTPUT_DIR", str(tmp_path)])
    assert not hasattr(cfg.SOLVER, "EMA_DECAY")
    check_config(cfg, train=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert isinstance(trainer.scheduler._multiplier, WarmupPoly)
    assert trainer._last_eval_results["sem_seg"]["mIoU"] >= 0
    predictor = Predictor(cfg, str(tmp_path / "model_final.pth"))
    assert predictor(np.zeros((64, 80, 3), np.uint8)).label.shape == (64, 80)


def test_a_config_keeps_its_class_names_where_its_files_are_gone(tmp_path):
    base = config_folder() / "det_retinanet_lite_topformer_t.yaml"
    boxes = tmp_path / "boxes.json"
    categories = [{"id": 7, "name": "cell"}, {"id": 9, "name": "dust"}]
    image = {"id": 1, "file_name": "a.png", "height": 9, "width": 9}
    boxes.write_text(json.dumps({"images": [image], "annotations": [], "categories": categories}))
    own = tmp_path / "own.yaml"
    own.write_text(
        f"_BASE_: {base}\nDATASETS:\n  TRAIN: ('vanishing',)\n  TEST: ('vanishing',)\n"
        f"  FOLDERS:\n    vanishing: {{IMAGES: {tmp_path}, BOXES: {boxes}}}\n"
    )
    (tmp_path / "config.yaml").write_text(load_config(str(own)).dump())
    boxes.unlink()
    cfg = get_cfg()
    add_topformer_config(cfg)
    cfg.merge_from_file(str(tmp_path / "config.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    try:
        for clean in (True, False):
            if clean:  # as in another process
                DatasetCatalog.remove("vanishing")
                MetadataCatalog.remove("vanishing")
            build_model(cfg)
            assert MetadataCatalog.get("vanishing").thing_classes == ["cell", "dust"]
        assert load_config(str(tmp_path / "config.yaml")).DATASETS.THING_CLASSES == ["cell", "dust"]
    finally:
        DatasetCatalog.remove("vanishing")
        MetadataCatalog.remove("vanishing")


def test_supervision_takes_what_default_predictor_gives(trained, tmp_path):
    sv = pytest.importorskip("supervision")
    config, weights = trained
    cfg = load_config(config, ["MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu"])
    image = cv2.imread(photo(tmp_path / "a.png", 64, 80))
    found = DefaultPredictor(cfg)(image)
    detections = sv.Detections.from_detectron2(found)
    assert len(detections) == len(found["instances"]) > 9
    torch.testing.assert_close(
        torch.from_numpy(detections.xyxy), found["instances"].pred_boxes.tensor
    )
    one = detections[detections.class_id == 2]
    assert 0 < len(one) < len(detections)
    labels = [NAMES[i] for i in detections.class_id]
    drawn = sv.LabelAnnotator().annotate(
        sv.BoxAnnotator().annotate(image.copy(), detections), detections, labels=labels
    )
    assert drawn.shape == image.shape and (drawn != image).any()


def _blocks():
    return re.findall(
        r"```python\n(.*?)```", (REPOSITORY / "docs/other_tools.md").read_text(), re.S
    )


def test_fastapi_answers_many_at_once_as_one_by_one(trained, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    config, weights = trained
    (code,) = (block for block in _blocks() if "FastAPI" in block)
    module = {}
    code = code.replace("output/my_detector/config.yaml", config)
    exec(code.replace("output/my_detector/model_final.pth", weights), module)
    files = [photo(tmp_path / f"{i}.png", 60 + 5 * i, 80, seed=i) for i in range(4)]
    bodies = [Path(file).read_bytes() for file in files]

    def post(client, body):
        kind = {"Content-Type": "application/octet-stream"}
        return client.post("/predict", content=body, headers=kind)

    with TestClient(module["app"]) as client:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: post(client, bodies[i % 4]).json(), range(16)))
        assert post(client, b"no image").status_code == 400
    for i, answer in enumerate(answers):
        scene = module["predictor"](cv2.imread(files[i % 4]))
        assert [each["name"] for each in answer] == [NAMES[c] for c in scene.classes]
        assert np.allclose([each["box"] for each in answer], scene.boxes, atol=1e-4)


def test_a_scene_becomes_supervisions_detections():
    pytest.importorskip("supervision")
    scene = Scene(boxes=np.array([[1.0, 2, 30, 40]]), classes=np.array([3]), scores=np.array([0.5]))
    detections = scene.to_supervision()
    assert detections.xyxy.tolist() == [[1.0, 2.0, 30.0, 40.0]]
    assert (detections.class_id.tolist(), detections.confidence.tolist()) == ([3], [0.5])
