"""Print what a model costs, or the paper's tables with this toolkit's figures beside them.

  topformer analyze --config-file configs/seg_topformer_b.yaml --chart parts.png
  topformer analyze --config-file configs/det_retinanet_topformer_t.yaml --size 800 1333
  topformer analyze --tables

A config's model is printed module by module, and by the parts of the paper's Figure 3 with the
share of each: parameters, GMACs (as fvcore counts), activations (the sum of all tensors that
modules put out, in MiB) and time. That is the network's time on MODEL.DEVICE (one thread of a CPU),
the median over the repetitions, without what follows it.
"""

from __future__ import annotations

import argparse
import os

from ..analysis import (
    complexity,
    draw_parts,
    format_costs,
    format_parts,
    format_tables,
    profile_parts,
)
from ..config import load_config, model_tasks
from ..data.images import check_image_name, write_image
from ..errors import InputError, printable, shown
from ..inference.allocator import keep_freed_memory
from ..inference.threads import threads
from ..modeling import build_model
from .parsing import Parser

# Of what goes with --config-file alone.
DEFAULTS = {"size": (512, 512), "depth": 2, "repetitions": 30, "chart": None}


def make_parser() -> Parser:
    """The arguments of `topformer analyze`."""
    parser = Parser(__doc__, argument_default=argparse.SUPPRESS)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", metavar="FILE")
    what.add_argument("--tables", action="store_true", default=False, help="of the paper")
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="default: 512 512"
    )
    parser.add_argument("--depth", type=int, help="of the module names; default: 2")
    parser.add_argument("--repetitions", type=int, help="of the timing; default: 30")
    parser.add_argument("--chart", metavar="FILE", help="draw the parts' shares as a picture")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Print the tables, or one model's costs."""
    if args.tables and (args.opts or DEFAULTS.keys() & vars(args).keys()):
        parser.error(
            "--size, --depth, --repetitions, --chart and KEY VALUE pairs go with --config-file"
        )
    keep_freed_memory()
    with threads(1):
        if args.tables:
            for text in format_tables():
                print(f"{text}\n", flush=True)
        else:
            analyze_config(argparse.Namespace(**(DEFAULTS | vars(args))))


def analyze_config(args: argparse.Namespace) -> None:
    """Print one model's costs, and draw its chart."""
    if min(*args.size, args.repetitions) < 1:
        raise InputError(f"--size is {args.size}, --repetitions {args.repetitions}; 1 is the least")
    if args.chart:
        check_image_name(args.chart)  # before the work, not after
    cfg = load_config(args.config_file, args.opts)
    model_tasks(cfg)  # says what is wrong with META_ARCHITECTURE
    model = build_model(cfg)
    print(format_costs(complexity(model, *args.size), args.depth))
    parts = profile_parts(model, args.size[0], args.size[1], args.repetitions)
    title = f"{os.path.basename(args.config_file)}, {args.size[0]}x{args.size[1]}"
    print(f"\n{printable(title)}, {cfg.MODEL.DEVICE}\n{format_parts(parts)}")
    if args.chart:
        write_image(args.chart, draw_parts(parts, title)[:, :, ::-1])
        print(f"wrote {shown(args.chart)}")
