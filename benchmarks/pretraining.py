#!/usr/bin/env python
"""Does pretraining help where labels are few? On textures that the project makes itself.

  python -m benchmarks.pretraining --output output/pretraining --seeds 0 1 2

A classifier (TopFormer-T) learns images of one of 150 textures each, in a folder for each texture.
Then T learns to segment images of four textures each, from a tenth of the labelled images: from
random weights, and from the classifier's. Both see equal crops for as many iterations. Prints a
Markdown table. A run that was stopped goes on, and one that is done is not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from detectron2.utils.logger import setup_logger

from topformer_d2.config import config_folder, load_config
from topformer_d2.data.images import write_image
from topformer_d2.data.synthetic import NUM_TEXTURES, make_textures
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError, show_input_errors
from topformer_d2.files import write_json
from topformer_d2.tasks import IMAGES, PIXELS, Task

NAMES = [f"texture_{kind:03d}" for kind in range(NUM_TEXTURES)]
# Sides of the images that are classified, and of those that are segmented.
CLASS_SIZE, SIZE, REGIONS = 32, 64, 4


def write_classes(folder: Path, seeds: range) -> None:
    """An image of one texture for each seed, in its class's folder."""
    for seed in seeds:
        image, label = make_textures(seed, CLASS_SIZE, CLASS_SIZE, regions=1)
        write_image(folder / NAMES[label[0, 0]] / f"{seed}.png", image[:, :, ::-1])


def write_pixels(folder: Path, seeds: range) -> None:
    """An image of several textures and its label map for each seed."""
    for seed in seeds:
        image, label = make_textures(seed, SIZE, SIZE, regions=REGIONS)
        write_image(folder / "images" / f"{seed}.png", image[:, :, ::-1])
        write_image(folder / "labels" / f"{seed}.png", label.astype(np.uint8))


def make_data(folder: Path, images: int, labelled: int) -> None:
    """Write both datasets, unless they are there."""
    if (folder / "done").exists():
        return
    write_classes(folder / "classes/train", range(images))
    write_classes(folder / "classes/val", range(10**6, 10**6 + images // 5))
    write_pixels(folder / "labelled", range(2 * 10**6, 2 * 10**6 + labelled))
    write_pixels(folder / "val", range(3 * 10**6, 3 * 10**6 + 200))
    (folder / "done").touch()


def write_config(path: Path, base: str, folders: dict, opts: dict) -> str:
    """A config on top of a shipped one, with datasets named "train" and "val"."""
    content = {"_BASE_": str(config_folder() / f"{base}.yaml"), "VERSION": 2, **opts}
    content["DATASETS"] = {"TRAIN": ["train"], "TEST": ["val"], "FOLDERS": folders}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return str(path)


def pretraining_config(path: Path, data: Path, iterations: int) -> str:
    """The classifier's; nothing in it changes a texture's colour, which is its class."""
    folders = {
        split: {"CLASS_FOLDERS": str(data / "classes" / split), "CLASSES": NAMES}
        for split in ("train", "val")
    }
    cls = {"SIZE": CLASS_SIZE, "AREA": [0.5, 1.0], "RAND_AUGMENT_OPS": 0, "ERASING_PROB": 0.1}
    solver = {"IMS_PER_BATCH": 32, "REFERENCE_BATCH": 0, "BASE_LR": 0.004, "EMA_DECAY": 0.99}
    solver |= _length(iterations)
    return write_config(
        path,
        "cls_topformer_t",
        folders,
        {
            "INPUT": {"CLS": cls, "MIN_SIZE_TEST": CLASS_SIZE},
            "DATALOADER": {"NUM_WORKERS": 0},
            "SOLVER": solver,
            "TEST": {"EVAL_PERIOD": 0, "BEST_METRICS": []},
        },
    )


def segmentation_config(path: Path, data: Path, iterations: int, rate: float) -> str:
    """The segmenter's: the synthetic dataset's recipe, on a tenth of the labelled images."""
    folders = {
        name: {"IMAGES": str(data / part / "images"), "LABELS": str(data / part / "labels")}
        | {"CLASSES": NAMES, **share}
        for name, part, share in (
            ("train", "labelled", {"SHARE": [0.0, 0.1]}),
            ("val", "val", {}),
        )
    }
    solver = {"IMS_PER_BATCH": 8, "BASE_LR": rate, **_length(iterations)}
    return write_config(
        path,
        "seg_topformer_t_synthetic",
        folders,
        {
            "INPUT": {"CROP": {"SIZE": [SIZE, SIZE]}, "MIN_SIZE_TEST": SIZE},
            "DATALOADER": {"NUM_WORKERS": 0},
            "SOLVER": solver,
        },
    )


def _length(iterations: int) -> dict[str, int]:
    return {
        "MAX_ITER": iterations,
        "WARMUP_ITERS": iterations // 20,
        "CHECKPOINT_PERIOD": max(1, iterations // 2),
    }


def train(config: str, folder: Path, task: Task, seed: int, weights: str = "") -> float:
    """Train unless it is done; returns the task's metric of the validation images, in percent."""
    done = folder / "inference/val" / f"{task.metrics}_evaluation.json"
    if not done.is_file():  # which the last iteration's evaluation writes
        opts = ["SEED", str(seed), "OUTPUT_DIR", str(folder), "MODEL.DEVICE", "cpu"]
        cfg = load_config(config, [*opts, "MODEL.WEIGHTS", weights])
        cfg.freeze()
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.train()
    return json.loads(done.read_text())["metrics"][task.main_metric]


def check_settings(file: Path, settings: dict) -> None:
    """Raise InputError where what lies beside the file was made with other settings."""
    if file.exists() and (made := json.loads(file.read_text())) != settings:
        raise InputError(f"{file.parent} was made with {made}, not {settings}: use another folder")
    write_json(str(file), settings)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, metavar="DIR", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=3000, help="of classes; default: 3000")
    parser.add_argument(
        "--labelled", type=int, default=2000, help="images, a tenth of them used; default: 2000"
    )
    parser.add_argument("--pretraining", type=int, default=400, help="iterations; default: 400")
    parser.add_argument("--iterations", type=int, default=400, help="of segmentation; default: 400")
    parser.add_argument("--rate", type=float, default=0.01, help="of segmentation; default: 0.01")
    args = parser.parse_args()
    torch.set_num_threads(1)
    setup_logger(name="topformer_d2")
    out, data = args.output, args.output / "data"
    with show_input_errors():
        settings = {k: v for k, v in vars(args).items() if k not in ("output", "seeds")}
        out.mkdir(parents=True, exist_ok=True)
        check_settings(out / "settings.json", settings)
        make_data(data, args.images, args.labelled)
        classes = pretraining_config(out / "cls.yaml", data, args.pretraining)
        pixels = segmentation_config(out / "seg.yaml", data, args.iterations, args.rate)
        found: dict[str, list[float]] = {"random weights": [], "the classifier's": []}
        top1 = []
        for seed in args.seeds:
            start = out / f"classifier_seed{seed}"
            top1.append(train(classes, start, IMAGES, seed))
            weights = ("", str(start / "model_final.pth"))
            for name, path, kind in zip(found, weights, ("random", "pretrained"), strict=True):
                folder = out / f"{kind}_seed{seed}"
                found[name].append(train(pixels, folder, PIXELS, seed, path))
    print(f"top-1 of the classifiers: {', '.join(f'{value:.1f}' for value in top1)}\n")
    print(f"| mIoU from | {' | '.join(f'seed {seed}' for seed in args.seeds)} | mean |")
    print("|---" * (len(args.seeds) + 2) + "|")
    for name, values in found.items():
        cells = " | ".join(f"{value:.1f}" for value in values)
        print(f"| {name} | {cells} | {np.mean(values):.1f} |")


if __name__ == "__main__":
    main()
