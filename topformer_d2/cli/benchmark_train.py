"""Time a training step on a CPU by part, and measure its peak memory.

  topformer benchmark train --config-file configs/seg_topformer_t.yaml --batch 4 --threads 2
  topformer benchmark train --config-file C --compare --json times.json

The parts are data (reading and augmenting the batch, in this process), forward, loss, backward and
optimizer; with MODEL.TEACHER also teacher, its forward pass and its losses. The batch is synthetic,
at the config's sizes; the weights are untrained. "straight" is the same network as one would write
it: PyTorch's usual layout, activations that make new maps, a loss that resizes all logits (where
MODEL.SEM_SEG_LOSS adds nothing to it), an optimizer that is not fused. "Peak" is what a step adds
to the memory of the process.

--compare adds torchvision's LR-ASPP and transformers' SegFormer-B0 with the same plain loss. All
steps alternate, so that what else the machine does falls on all alike; times are medians, ratios
medians over the repetitions.
"""

from __future__ import annotations

import argparse
import tempfile

from ..analysis.benchmark import describe_machine
from ..analysis.training import (
    format_training,
    make_steps,
    time_training,
    training_records,
    write_training_images,
)
from ..config import check_dense, load_config, model_tasks
from ..errors import InputError, printable
from ..files import check_output, write_json
from ..inference.allocator import keep_freed_memory
from .parsing import Parser, add_opts


def make_parser() -> Parser:
    """The arguments of `topformer benchmark train`."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, default=4, help="images; default: 4")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--compare", action="store_true", help="beside other libraries' networks")
    parser.add_argument("--json", metavar="FILE", help="all figures")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Time, print the table, and write what was asked for."""
    if min(args.threads, args.repetitions) < 1 or args.batch < 2:
        parser.error("--threads and --repetitions take 1 or more, --batch 2 or more")
    if args.json:
        check_output(args.json, "json")
    cfg = load_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
    check_dense(cfg)
    if args.compare and model_tasks(cfg) != ("sem_seg",):
        raise InputError("--compare is for segmentation: name a seg_*.yaml config")
    keep_freed_memory(training=True)  # as in a training; for all rows alike
    steps = make_steps(cfg, with_peers=args.compare)
    with tempfile.TemporaryDirectory() as folder:
        records = write_training_images(cfg, folder, args.batch)
        results = time_training(
            *(cfg, steps, records), repetitions=args.repetitions, num_threads=args.threads
        )
    threads_used = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    machine = describe_machine()
    print(f"batch {args.batch}, {threads_used}, {args.repetitions} repetitions; {machine}")
    print(printable(format_training(results)))
    if args.json:
        settings = {key: getattr(args, key) for key in ("batch", "threads", "repetitions")}
        content = {**settings, "machine": machine, "results": training_records(results)}
        write_json(args.json, content)
