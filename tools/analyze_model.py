#!/usr/bin/env python
"""Print what a model costs, or the paper's tables with this toolkit's figures beside them.

  python tools/analyze_model.py --config-file configs/seg_topformer_b.yaml --chart parts.png
  python tools/analyze_model.py --config-file configs/det_retinanet_topformer_t.yaml --size 800 1333
  python tools/analyze_model.py --tables

A config's model is printed module by module, and by the parts of the paper's Figure 3 with the
share of each: parameters, GMACs (as fvcore counts), activations (the sum of all tensors that
modules put out, in MiB) and time. That is the network's time on MODEL.DEVICE (one thread of a CPU),
the median over the repetitions, without what follows it.
"""

import argparse
import os

import torch

from topformer_d2.analysis import (
    complexity,
    draw_parts,
    format_costs,
    format_parts,
    format_tables,
    keep_freed_memory,
    profile_parts,
)
from topformer_d2.config import load_config, model_tasks
from topformer_d2.data.images import check_image_name, write_image
from topformer_d2.errors import InputError, printable, show_input_errors, shown
from topformer_d2.modeling import build_model

# Of what goes with --config-file alone.
DEFAULTS = {"size": (512, 512), "depth": 2, "repetitions": 30, "chart": None}


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
    parts = profile_parts(model, *args.size, args.repetitions)
    title = f"{os.path.basename(args.config_file)}, {args.size[0]}x{args.size[1]}"
    print(f"\n{printable(title)}, {cfg.MODEL.DEVICE}\n{format_parts(parts)}")
    if args.chart:
        write_image(args.chart, draw_parts(parts, title)[:, :, ::-1])
        print(f"wrote {shown(args.chart)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
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
    args = parser.parse_args()
    if args.tables and (args.opts or DEFAULTS.keys() & vars(args).keys()):
        parser.error(
            "--size, --depth, --repetitions, --chart and KEY VALUE pairs go with --config-file"
        )
    keep_freed_memory()
    torch.set_num_threads(1)
    with show_input_errors():
        if args.tables:
            for text in format_tables():
                print(f"{text}\n", flush=True)
        else:
            analyze_config(argparse.Namespace(**(DEFAULTS | vars(args))))


if __name__ == "__main__":
    main()
