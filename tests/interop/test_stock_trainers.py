"""The shipped configs in Detectron2's own trainers, loaded as those load a config."""

import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import EventStorage

from topformer_d2 import add_topformer_config
from topformer_d2.config import config_folder
from topformer_d2.data.builtin import datasets_root

SMALL = [
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "80"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "80"),
    *("INPUT.CROP.SIZE", "[48, 48]", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3"),
    *("SOLVER.WARMUP_ITERS", "1", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"),
    *("SOLVER.STEPS", "(2,)", "TEST.EVAL_PERIOD", "0"),
    # The gradients of an untrained BatchNorm over a map of one pixel are huge.
    *("SOLVER.BASE_LR", "1e-9"),
]
BOXES = ["MODEL.RETINANET.NUM_CLASSES", "5"]
PIXELS = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6"]
# Config, datasets, options, what is evaluated.
RUNS = {
    "segmenter": ("seg_topformer_t_synthetic", "sem_seg", PIXELS, "sem_seg"),
    "lite": ("det_retinanet_lite_topformer_t", "boxes", BOXES, "bbox"),
    "full": (
        "det_retinanet_topformer_t",
        "boxes",
        [*BOXES, "MODEL.FPN.OUT_CHANNELS", "16"],
        "bbox",
    ),
    "joint": ("multitask_lite_topformer_t_synthetic", "multitask", [], "bbox"),
}


def stock_config(config_file, output, *opts):
    """As setup() of Detectron2's tools does it."""
    cfg = get_cfg()
    add_topformer_config(cfg)
    cfg.merge_from_file(str(config_file))
    cfg.merge_from_list([*SMALL, *opts, "OUTPUT_DIR", str(output)])
    cfg.freeze()
    return cfg


@pytest.fixture(params=RUNS)
def run(request, tmp_path):
    name, data, opts, task = RUNS[request.param]
    datasets = [f"DATASETS.{part.upper()}" for part in ("train", "test")]
    names = [f"('synthetic_{data}_{split}',)" for split in ("train", "val")]
    pairs = [x for pair in zip(datasets, names, strict=True) for x in pair]
    return stock_config(config_folder() / f"{name}.yaml", tmp_path, *opts, *pairs), task


def stock_evaluator(dataset, output):
    """What the build_evaluator of Detectron2's tools knows of its types, where we use them."""
    kind = MetadataCatalog.get(dataset).evaluator_type
    if kind == "sem_seg":
        return SemSegEvaluator(dataset, distributed=False, output_dir=output)
    assert kind == "coco"
    return COCOEvaluator(dataset, output_dir=output)


class StockTrainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return stock_evaluator(dataset_name, cfg.OUTPUT_DIR)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if "recipe" in r.getMessage()]


def test_default_trainer(run, caplog):
    cfg, task = run
    with caplog.at_level(logging.WARNING, "topformer_d2"):
        trainer = StockTrainer(cfg)
        trainer.resume_or_load(resume=False)
        assert not warnings_of(caplog)  # nothing has been trained yet
        trainer.train()
    assert type(trainer.optimizer) is torch.optim.SGD
    key = "mIoU" if task == "sem_seg" else "AP"
    assert key in trainer._last_eval_results[task]
    (warned,) = warnings_of(caplog) or [""]
    assert ("SOLVER.OPTIMIZER ADAMW" in warned) == (cfg.SOLVER.OPTIMIZER == "ADAMW")
    assert ("SOLVER.SCHEDULE WarmupPolyLR" in warned) == bool(cfg.SOLVER.SCHEDULE)


def test_plain_loop(run):
    cfg, task = run
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, optimizer=optimizer)
    checkpointer.resume_or_load("", resume=False)
    with EventStorage(0) as storage:
        for data, iteration in zip(build_detection_train_loader(cfg), range(2), strict=False):
            storage.iter = iteration
            losses = model(data)
            total = sum(losses.values())
            assert torch.isfinite(total)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            scheduler.step()
    checkpointer.save("model_final")
    (name,) = cfg.DATASETS.TEST
    loader = build_detection_test_loader(cfg, name)
    found = inference_on_dataset(model, loader, stock_evaluator(name, cfg.OUTPUT_DIR))
    assert found[task]


KINDS = {
    "pixels": ("IMAGES LABELS CLASSES", "seg_topformer_t_synthetic", PIXELS),
    "boxes": ("IMAGES BOXES", "det_retinanet_lite_topformer_t", BOXES),
    "both": ("IMAGES LABELS CLASSES BOXES", "multitask_lite_topformer_t_synthetic", []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_datasets_of_a_config_are_registered_when_the_model_is_built(kind, tmp_path):
    root, classes = datasets_root(), tmp_path / "classes.txt"
    classes.write_text("\n".join(f"c{i}" for i in range(6)))
    names = {split: f"stock_{kind}_{split}" for split in ("train", "val")}
    keys, base, opts = KINDS[kind]
    folders = ""
    for split, name in names.items():
        paths = {
            "IMAGES": f"{root}/synthetic/images/{split}",
            "LABELS": f"{root}/synthetic/annotations_detectron2/{split}",
            "BOXES": f"{root}/synthetic/annotations/instances_{split}.json",
            "CLASSES": classes,
        }
        folders += f"    {name}:\n"
        folders += "".join(f"      {key}: {paths[key]}\n" for key in keys.split())
    config = tmp_path / "own.yaml"
    config.write_text(
        f"_BASE_: {config_folder() / base}.yaml\nDATASETS:\n  TRAIN: ('{names['train']}',)\n"
        f"  TEST: ('{names['val']}',)\n  FOLDERS:\n{folders}"
    )
    try:
        trainer = StockTrainer(stock_config(config, tmp_path / "output", *opts))
        trainer.train()
        assert trainer._last_eval_results
        metadata = MetadataCatalog.get(names["train"])
        assert kind == "boxes" or metadata.stuff_classes[0] == "c0"
        assert kind == "pixels" or len(metadata.thing_classes) == 5
    finally:
        for name in names.values():
            if name in DatasetCatalog.list():
                DatasetCatalog.remove(name)
            if name in MetadataCatalog.list():
                MetadataCatalog.remove(name)
