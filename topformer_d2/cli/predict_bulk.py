"""`topformer predict --engine ray`: its options, and what they ask for."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ..config import load_config
from ..errors import InputError, shown
from ..inference import Predictor
from ..inference.bulk import (
    PARTITION_SIZE,
    RayEngine,
    identify_model,
    list_inputs,
    predict_in_bulk,
)
from ..inference.bulk.work import LABEL_FORMATS
from ..inference.bulk.writer import BOX_FORMATS
from ..inference.formats import runtimes_of

if TYPE_CHECKING:
    from .parsing import Parser

# Options of one process alone, by their names in the namespace, and what to do instead.
_OF_ONE_PROCESS = {
    "track": "it is for videos, which it does not read",
    "save_json": "boxes are in --output, in boxes.jsonl of each partition: leave it out",
    "save_labels": "convert what it wrote, or leave out --engine",
    "min_score": "it draws nothing and writes all boxes with their scores: leave it out",
}
# Options that need --engine ray; their defaults are None.
_OF_THE_ENGINE = (
    *("actors", "address", "gpus_per_actor", "label_format", "box_format", "partition_size"),
)
# Options that need a task, and what a model without it finds.
_OF_A_TASK = (("label_format", "sem_seg", "boxes"), ("box_format", "instances", "label maps"))


def add_bulk_options(parser: Parser) -> None:
    """--engine, and the options that need it."""
    group = parser.add_argument_group(
        "very many images",
        "--input may then also be a .txt or .parquet of paths, or a URI such as s3://bucket/photos",
    )
    group.add_argument(
        "--engine",
        choices=("ray",),
        help="predict in many processes by Ray Data, without overlays; a run that ends early is "
        "continued by the same command (pip install topformer_d2[ray])",
    )
    group.add_argument("--actors", type=int, help="processes that predict; default: by the cores")
    group.add_argument("--address", help="of a Ray cluster; default: a Ray that ends with the run")
    group.add_argument(
        "--gpus-per-actor", type=float, help="such as 0.25, for four on a GPU; default: 0, the CPU"
    )
    group.add_argument(
        "--label-format", choices=LABEL_FORMATS, help="label maps as files or lines; default: png"
    )
    group.add_argument("--box-format", choices=BOX_FORMATS, help="default: jsonl")
    group.add_argument(
        "--partition-size",
        type=int,
        help=f"images that are written together; default: {PARTITION_SIZE}",
    )


def check_engine(args: argparse.Namespace) -> None:
    """Raise InputError where options do not go with --engine, or need it."""
    if args.engine is None:
        for name in _OF_THE_ENGINE:
            if getattr(args, name) is not None:
                raise InputError(f"{_option(name)} is for --engine ray: add that, or leave it out")
        return
    for name, fix in _OF_ONE_PROCESS.items():
        if getattr(args, name) not in (None, False):
            raise InputError(f"{_option(name)} does not go with --engine ray: {fix}")


def run_bulk(predictor: Predictor, args: argparse.Namespace) -> int:
    """The exit status: 1 where images were rejected."""
    is_on_gpu = predictor.backend.batch > 1  # which is where images share batches
    if is_on_gpu and not args.gpus_per_actor:
        raise InputError(
            "the model runs on a GPU: name --gpus-per-actor, such as 0.25, or set MODEL.DEVICE cpu"
        )
    if args.gpus_per_actor and not is_on_gpu:
        raise InputError("--gpus-per-actor: the model runs on the CPU here: leave it out")
    for name, task, other in _OF_A_TASK:
        if getattr(args, name) is not None and task not in predictor.info.tasks:
            raise InputError(f"{_option(name)}: this model finds {other} alone: leave it out")
    engine = RayEngine(
        actors=args.actors,
        address=args.address,
        cpus_per_actor=args.threads or 1,
        gpus_per_actor=args.gpus_per_actor or 0,
    )
    paths = list_inputs(args.input, "input")
    extension = os.path.splitext(args.model or "")[1].lower()
    how = {
        "backend": args.backend or (runtimes_of(extension) or ("torch",))[0],
        "tile_size": args.tile_size,
        "threads": args.threads or 1,  # on which sums of floats depend
    }
    given = args.model or load_config(args.config_file, args.opts)
    size = PARTITION_SIZE if args.partition_size is None else args.partition_size
    try:
        result = predict_in_bulk(
            predictor,
            paths,
            args.output,
            identity=identify_model(given, args.weights, **how),
            engine=engine,
            label_format=args.label_format or LABEL_FORMATS[0],
            box_format=args.box_format or BOX_FORMATS[0],
            max_pixels=args.max_pixels,
            partition_size=size,
        )
    except KeyboardInterrupt:  # and SIGTERM
        print("stopped: the same command does what is missing", file=sys.stderr)
        raise
    earlier = f", {result.earlier} of them by earlier runs" if result.earlier else ""
    print(f"{result.done} of {result.inputs} images done{earlier}: {shown(args.output)}")
    if result.rejected:
        where = shown(os.path.join(args.output, "rejects.jsonl"))
        print(f"skipped: {result.rejected} images, with the reasons in {where}", file=sys.stderr)
    return 1 if result.rejected else 0


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
