"""Awkward boxes, from the JSON through training to the evaluation."""

import json
import math

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from topformer_d2.data.boxes import register_boxes
from topformer_d2.engine import Trainer

NAMES = {3: "cat", 11: "never seen in training", 90: "dog"}


def write(folder, split, annotations, num_images):
    """Images of noise and a JSON; `annotations` are (image, category id, box, crowd)."""
    rng = np.random.default_rng(len(split))
    images = []
    for i in range(num_images):
        name = f"{split}{i}.png"
        Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(folder / name)
        images.append({"id": 100 * i, "file_name": name, "width": 80, "height": 64})
    boxes = [
        {
            "id": i,
            "image_id": 100 * image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": crowd,
        }
        for i, (image, category, box, crowd) in enumerate(annotations, start=1)
    ]
    categories = [{"id": i, "name": name} for i, name in NAMES.items()]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))
    register_boxes(f"awkward_{split}", str(folder / f"{split}.json"), str(folder))


@pytest.fixture
def awkward(tmp_path):
    train = [
        (0, 3, [10, 10, 1, 1], 0),
        (0, 90, [10, 10, 30, 30], 0),
        (1, 90, [0, 0, 80, 64], 1),  # a crowd alone
        (2, 3, [20, 20, 0, 9], 0),  # no area
        (2, 3, [90, 0, 9, 9], 0),  # outside
        (3, 90, [70, 50, 30, 30], 0),  # reaches out
    ]
    val = [
        (0, 11, [5, 5, 30, 30], 0),
        (0, 90, [5, 5, 40, 40], 1),
        (1, 3, [5, 5, 30, 30], 0),
        (1, 3, [50, 50, 1, 1], 0),
    ]
    write(tmp_path, "train", train, 8)  # half of the images have no object
    write(tmp_path, "val", val, 3)
    yield
    for split in ("train", "val"):
        DatasetCatalog.remove(f"awkward_{split}")
        MetadataCatalog.remove(f"awkward_{split}")


@pytest.mark.parametrize("kind", ["", "lite_"])
def test_awkward_boxes_train_and_evaluate(tiny_detector, awkward, caplog, kind):
    cfg = tiny_detector(
        *("DATASETS.TRAIN", "('awkward_train',)", "DATASETS.TEST", "('awkward_val',)"),
        *("MODEL.RETINANET.NUM_CLASSES", "3", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "8"),
        # Else a model that has hardly trained finds nothing to evaluate.
        *("MODEL.RETINANET.SCORE_THRESH_TEST", "0.0"),
        kind=kind,
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    metrics = Trainer.test(cfg, trainer.model)["bbox"]
    assert {key for key in metrics if key.startswith("AP-")} == {f"AP-{n}" for n in NAMES.values()}
    assert math.isfinite(metrics["AP"]) and math.isnan(metrics["AP-dog"])  # crowds alone
    losses = trainer.storage.history("total_loss").values()
    assert len(losses) == 8 and all(math.isfinite(value) for value, _ in losses)
    # Batches without any object among them.
    counts = [value for value, _ in trainer.storage.history("num_pos_anchors").values()]
    assert min(counts) == 0 < max(counts)
    dropped = [r.message for r in caplog.records if "boxes of no area" in r.message]
    assert len(dropped) == 1 and dropped[0].startswith("dropped 2 boxes")
