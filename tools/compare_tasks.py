#!/usr/bin/env python
"""Does sharing a backbone cost accuracy? Train a joint config, and each of its tasks on its own.

  python tools/compare_tasks.py --config-file configs/multitask_lite_topformer_t_camvid.yaml \\
    --seeds 0 1 2 --output output/compare_camvid

The three models of a seed see the same crops in the same order, for as many iterations. A run that
was stopped goes on, and one that is done is not repeated. KEY VALUE pairs at the end go to all.
"""

import json
import os
import subprocess
import sys

import numpy as np
from tabulate import tabulate

from topformer_d2.cli import config_parser
from topformer_d2.config import load_config, model_tasks, single_task_opts
from topformer_d2.errors import InputError, show_input_errors

FILES = {"sem_seg": "sem_seg_evaluation.json", "instances": "bbox_evaluation.json"}
SHOWN = {"sem_seg": ["mIoU", "pACC"], "instances": ["AP", "AP50"]}


def run(config_file: str, opts: list[str], folder: str, dataset: str) -> dict[str, dict]:
    """Train unless it is done; returns the metrics of each task that was trained."""
    done = os.path.join(folder, "model_final.pth")
    results = os.path.join(folder, "inference", dataset)
    if not os.path.isfile(done) or not os.path.isdir(results):
        tool = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train_net.py")
        command = [sys.executable, tool, "--config-file", config_file, "--resume"]
        status = subprocess.run([*command, *opts, "OUTPUT_DIR", folder]).returncode
        if status:
            sys.exit(status)  # train_net.py has said why
    metrics = {}
    for task, name in FILES.items():
        if os.path.isfile(os.path.join(results, name)):
            with open(os.path.join(results, name), encoding="utf-8") as f:
                metrics[task] = json.load(f)["metrics"]
    return metrics


def table(results: dict[str, list[dict]]) -> str:
    """Mean and, in brackets, lowest and highest of the seeds, a row a model."""
    rows = []
    for model, seeds in results.items():
        row = [model]
        for task, names in SHOWN.items():
            for name in names:
                values = [metrics[task][name] for metrics in seeds if task in metrics]
                row.append(
                    f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
                    if values
                    else ""
                )
        rows.append(row)
    return tabulate(rows, headers=["", *(name for names in SHOWN.values() for name in names)])


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", required=True, metavar="DIR")
    args = parser.parse_args()
    with show_input_errors():
        cfg = load_config(args.config_file, args.opts)
        tasks = model_tasks(cfg)
        if len(tasks) < 2:
            raise InputError(
                f"{args.config_file} has one task, {tasks[0]}: name a config of TopFormerMultiTask"
            )
    models = {"both": [], **{f"{task} alone": single_task_opts(cfg, task) for task in tasks}}
    results: dict[str, list[dict]] = {name: [] for name in models}
    for seed in args.seeds:
        for name, opts in models.items():
            folder = os.path.join(args.output, f"{name.replace(' ', '_')}_seed{seed}")
            opts = [*args.opts, *opts, "SEED", str(seed)]
            results[name].append(run(args.config_file, opts, folder, cfg.DATASETS.TEST[0]))
    print(f"\n{cfg.DATASETS.TEST[0]}: mean (lowest to highest) of the seeds {args.seeds}")
    print(table(results))


if __name__ == "__main__":
    main()
