#!/usr/bin/env python
"""Make the synthetic dataset, train TopFormer-T on it, evaluate, and draw what came out."""

import argparse
import json
import os
import subprocess
import sys
import time

# Seeds 0 to 4 gave 89.5, 89.9, 88.3, 88.8 and 88.6 on two CPU cores.
MIN_MIOU = 85.0
CONFIG = "seg_topformer_t_synthetic"


def train(folder: str, seed: int) -> float:
    """Run train_net.py as a user would; returns the mIoU that it found."""
    from topformer_d2.config import config_folder

    train_net = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train_net.py")
    config = os.path.join(config_folder(), f"{CONFIG}.yaml")
    command = [sys.executable, train_net, "--config-file", config]
    status = subprocess.run([*command, "OUTPUT_DIR", folder, "SEED", str(seed)]).returncode
    if status:
        sys.exit(status)  # train_net.py has said why
    result = os.path.join(folder, "inference", "synthetic_sem_seg_val", "sem_seg_evaluation.json")
    with open(result, encoding="utf-8") as f:
        return json.load(f)["metrics"]["mIoU"]


def draw_sheet(folder: str) -> str:
    """Write a sheet of validation images with truth and prediction; returns its path."""
    from topformer_d2 import get_config
    from topformer_d2.data.files import write_image
    from topformer_d2.inference import build_predictor
    from topformer_d2.visualization import prediction_sheet

    predictor = build_predictor(get_config(CONFIG), os.path.join(folder, "model_final.pth"))
    sheet = prediction_sheet(predictor, predictor.cfg.DATASETS.TEST[0], num_images=4)
    path = os.path.join(folder, "sheet.png")
    write_image(path, sheet[:, :, ::-1])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/demo", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    # Before the first import of the package: registration reads it.
    os.environ["DETECTRON2_DATASETS"] = os.path.join(args.output, "datasets")
    from topformer_d2.data.synthetic import write_synthetic
    from topformer_d2.errors import show_input_errors

    with show_input_errors():
        print(f"dataset: {write_synthetic(os.environ['DETECTRON2_DATASETS'])}")
        miou = train(args.output, args.seed)
        sheet = draw_sheet(args.output)
    print(f"\nmIoU {miou:.1f} on the validation split, {time.perf_counter() - start:.0f} s")
    print(f"image, truth and prediction side by side: {os.path.abspath(sheet)}")
    if miou < MIN_MIOU:
        sys.exit(f"error: mIoU {miou:.1f} is below {MIN_MIOU}, which every seed should reach")


if __name__ == "__main__":
    main()
