"""Evaluate a checkpoint on DATASETS.TEST of its config, or an exported file on a dataset.

  topformer eval --config-file configs/seg_topformer_t_camvid.yaml \\
    --weights output/seg_topformer_t_camvid/model_final.pth
  topformer eval --model camvid.onnx --dataset camvid_sem_seg_val
  topformer eval --model shapes.onnx --config-file shapes.yaml --report mistakes
  topformer eval --config-file configs/seg_topformer_t_camvid.yaml \\
    --weights output/seg_topformer_t_camvid/model_final.pth --report mistakes

A config's evaluation writes to OUTPUT_DIR/inference. An exported file is run as a Predictor runs
it, and its label maps and boxes are held against those of the dataset, or of the config's
DATASETS.TEST.

--report shows what the model gets wrong: report.html is one page that needs no server, worst.png
the worst images, suspects.json a list of suspected label errors that `topformer data view --list`
draws. `topformer compare` makes a page of two such folders. A file that was exported with --labels
has no confidences, and its page neither calibration nor suspected label errors.
"""

from __future__ import annotations

import argparse

from ..config import list_models, load_config
from ..errors import InputError
from ..evaluation.predictions import evaluate_tasks
from ..inference import Predictor
from . import train
from .parsing import Parser, add_opts
from .reporting import check_report, evaluate_and_report, report_folder


def make_parser() -> Parser:
    """The arguments of `topformer eval`."""
    parser = Parser(__doc__, {"dataset_name": "--dataset"})
    parser.add_argument(
        "--config-file", metavar="FILE", help="beside --model: what defines the datasets"
    )
    parser.add_argument(
        "--model",
        metavar="FILE_OR_NAME",
        help="what `topformer export` wrote, or a model that comes with the package: "
        + ", ".join(list_models()),
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="of the config; default: its MODEL.WEIGHTS"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="for --model: registered, with labels; default: the config's DATASETS.TEST",
    )
    parser.add_argument("--report", metavar="FOLDER", help="show there what the model gets wrong")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace, parser: Parser) -> int:
    """Evaluate, and print the figures."""
    if args.model:
        evaluate_file(args)
        return 0
    if not args.config_file:
        raise InputError("name what to evaluate: --config-file, or --model")
    if args.dataset:
        raise InputError("--dataset goes with --model; a config's is DATASETS.TEST \"('NAME',)\"")
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    arguments = ["--config-file", args.config_file, "--eval-only", *args.opts, *weights]
    words = train.make_parser().parse_args(arguments)
    if args.report:
        check_report(args.report)
        words.report = args.report
    return train.run(words, parser)


def evaluate_file(args: argparse.Namespace) -> None:
    """Evaluate --model on --dataset or on the config's DATASETS.TEST, and print the figures."""
    if args.weights or (args.opts and not args.config_file):
        raise InputError("--model has its config and weights inside: leave those out")
    # Loading the config registers its DATASETS.FOLDERS.
    test = load_config(args.config_file, args.opts).DATASETS.TEST if args.config_file else ()
    names = [args.dataset] if args.dataset else list(test)
    if not names:
        raise InputError(
            "--model is evaluated on a dataset: name a --dataset, or a --config-file whose "
            "DATASETS.TEST is not empty"
        )
    if args.report:
        check_report(args.report)
    predictor = Predictor(args.model)
    for name in names:
        if args.report:
            folder = report_folder(args.report, name, names)
            tasks = evaluate_and_report(predictor, args.model, name, folder)
        else:
            tasks = evaluate_tasks(predictor, name)
        if len(names) > 1:
            print(f"{name}:")
        for task, figures in tasks.items():
            prefix = f"{task}/" if len(tasks) > 1 else ""
            for key, value in figures.items():
                print(f"{prefix + key:<30} {value:6.2f}")
