#!/usr/bin/env python
"""Does sharing a backbone cost accuracy? Train a joint config, and each of its tasks on its own.

  python benchmarks/compare_tasks.py --config-file configs/multitask_lite_topformer_t_camvid.yaml \\
    --seeds 0 1 2 --output output/compare_camvid

The three models of a seed see the same crops in the same order, for as many iterations. A run that
was stopped goes on, and one that is done is not repeated. KEY VALUE pairs at the end go to all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

from topformer_d2.cli.parsing import config_parser
from topformer_d2.config import load_config, model_tasks, single_task_opts
from topformer_d2.data import check_config
from topformer_d2.data.labelled import has_task
from topformer_d2.errors import InputError, show_input_errors
from topformer_d2.files import write_json

FILES = {"sem_seg": "sem_seg_evaluation.json", "instances": "bbox_evaluation.json"}
SHOWN = {"sem_seg": ["mIoU", "pACC"], "instances": ["AP", "AP50"]}


def check(config_file: str, opts: list[str]):
    """The joint config; InputError where its models cannot be compared."""
    cfg = load_config(config_file, opts)
    check_config(cfg, train=True)
    if len(model_tasks(cfg)) < 2:
        raise InputError(f"{config_file} has one task: name a config of TopFormerMultiTask")
    if len(cfg.DATASETS.TEST) != 1:
        raise InputError(f"DATASETS.TEST is {tuple(cfg.DATASETS.TEST)}; it takes one dataset here")
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if not all(has_task(name, task) for task in FILES):
            raise InputError(
                f"dataset {name!r} has labels for one task alone, so the models would not see "
                "equal images: name datasets with both"
            )
    return cfg


def run(config_file: str, opts: list[str], folder: str, dataset: str) -> dict[str, dict]:
    """Train unless it is done; returns the metrics of each task that was trained.

    Raises:
        InputError: what is done there was done with other KEY VALUE pairs.
    """
    done = Path(folder, "done.json")
    if not done.is_file():
        command = [sys.executable, "-m", "topformer_d2", "train", "--config-file", config_file]
        status = subprocess.run([*command, "--resume", *opts, "OUTPUT_DIR", folder]).returncode
        if status:
            sys.exit(status)  # it has said why
        results = {task: Path(folder, "inference", dataset, name) for task, name in FILES.items()}
        metrics = {
            task: json.loads(file.read_text())["metrics"]
            for task, file in results.items()
            if file.is_file()
        }
        write_json(str(done), {"opts": opts, "metrics": metrics})
    content = json.loads(done.read_text())
    if content["opts"] != opts:
        raise InputError(f"{folder} was trained with {content['opts']}, not {opts}: use another")
    return content["metrics"]


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
        cfg = check(args.config_file, args.opts)
        models = {
            "both": [],
            **{f"{task} alone": single_task_opts(cfg, task) for task in model_tasks(cfg)},
        }
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
