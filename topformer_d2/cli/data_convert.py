"""Write a dataset of any label format as plain files, which every tool reads, or as tar files.

  topformer data convert --images photos --labels photos --output plain
  topformer data convert --images images --boxes labels --format yolo --output plain
  topformer data convert --config-file mine.yaml --dataset mine_train --output plain
  topformer data convert --config-file mine.yaml --output shards --to webdataset

The new folder has images/, with pixel labels labels/ (PNGs of the classes' indices) and
classes.txt, and with boxes boxes.json (COCO). With --to webdataset the images and labels are in tar
files instead (shards), and index.json has their places. What is printed at the end is its entry of
DATASETS.FOLDERS.
"""

from __future__ import annotations

import argparse

from ..config import load_config
from ..data.plain_layout import write_plain
from ..data.shard_writer import write_shards
from ..errors import InputError, printable
from .folder_options import add_folder_options, folder_dataset, has_folder_options
from .parsing import Parser, add_opts

_SHARD_MB = 256


def make_parser() -> Parser:
    """The arguments of `topformer data convert`."""
    parser = Parser(__doc__)
    parser.add_argument("--output", required=True, metavar="FOLDER")
    parser.add_argument("--to", choices=("plain", "webdataset"), default="plain")
    parser.add_argument(
        "--shard-mb",
        type=int,
        metavar="N",
        help=f"MiB of a tar file of --to webdataset; default: {_SHARD_MB}",
    )
    parser.add_argument("--config-file", metavar="FILE")
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TRAIN")
    add_folder_options(parser)
    add_opts(parser)
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Write the folder, and print its entry."""
    if args.shard_mb is not None and args.to != "webdataset":
        raise InputError("--shard-mb is for --to webdataset: add that, or leave it out")
    if has_folder_options(args):
        if args.config_file or args.dataset or args.opts:
            raise InputError("--images goes without --config-file, --dataset and KEY VALUE pairs")
        with folder_dataset(args) as name:
            entry = _write(name, args)
    else:
        if not (args.config_file or args.dataset):
            parser.error("name --images and its labels, or a --config-file")
        name = args.dataset
        if args.config_file:
            cfg = load_config(args.config_file, args.opts)
            name = name or next(iter(cfg.DATASETS.TRAIN), None)
        if not name:
            raise InputError("DATASETS.TRAIN is empty: name a --dataset")
        entry = _write(name, args)
    values = ", ".join(f"{key}: {value}" for key, value in entry.items())
    print(printable(f"wrote {args.output}; as DATASETS.FOLDERS: {{mine: {{{values}}}}}"))


def _write(name: str, args: argparse.Namespace) -> dict[str, str]:
    if args.to == "plain":
        return write_plain(name, args.output)
    return write_shards(name, args.output, _SHARD_MB if args.shard_mb is None else args.shard_mb)
