"""Evaluate a checkpoint on DATASETS.TEST of its config, or an exported file on a dataset.

  topformer eval --config-file configs/seg_topformer_t_camvid.yaml \\
    --weights output/seg_topformer_t_camvid/model_final.pth
  topformer eval --model camvid.onnx --dataset camvid_sem_seg_val

A config's evaluation writes to OUTPUT_DIR/inference. An exported file is run as a Predictor runs
it, and its label maps are held against the dataset's.
"""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..evaluation.predictions import evaluate_labels
from ..inference import Predictor
from . import train
from .parsing import Parser, add_opts


def make_parser() -> Parser:
    """The arguments of `topformer eval`."""
    parser = Parser(__doc__, {"dataset_name": "--dataset"})
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", metavar="FILE")
    what.add_argument("--model", metavar="FILE", help="what `topformer export` wrote")
    parser.add_argument(
        "--weights", metavar="FILE", help="of the config; default: its MODEL.WEIGHTS"
    )
    parser.add_argument("--dataset", metavar="NAME", help="of --model: registered, with labels")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace, parser: Parser) -> int:
    """Evaluate, and print the figures."""
    if args.model:
        if args.weights or args.opts:
            raise InputError("--model has its config and weights inside: leave those out")
        if not args.dataset:
            raise InputError("--model is evaluated on a --dataset: name one")
        for name, value in evaluate_labels(Predictor(args.model), args.dataset).items():
            print(f"{name:<30} {value:6.2f}")
        return 0
    if args.dataset:
        raise InputError("--dataset goes with --model; a config's is DATASETS.TEST \"('NAME',)\"")
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    arguments = ["--config-file", args.config_file, "--eval-only", *args.opts, *weights]
    return train.run(train.make_parser().parse_args(arguments), parser)
