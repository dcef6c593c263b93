"""Read every file of datasets and say what is wrong with them.

  topformer data check --config-file configs/seg_topformer_t_camvid.yaml
  topformer data check camvid_sem_seg_train bccd_val --json report.json
  topformer data check --images photos --labels photos

With a config, DATASETS.TRAIN and TEST are held against its model; names alone against what the
datasets say of themselves.

Exit status 1 where there is an error, which stops training or evaluation, or makes it wrong without
a word: a dataset that is not there, cannot be loaded or does not fit the config; a label without an
image; a file that is missing, unreadable or of another size; a label that is no 8-bit map of known
classes; a box that is malformed or of an unknown class; a grey image of 16 bits. All else is a
warning, with status 0: training runs and is right, but the data may not be what was meant.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..config import load_config
from ..data.inspection import inspect_config, inspect_datasets
from ..errors import InputError, printable
from ..files import write_json
from .folder_options import add_folder_options, folder_dataset, has_folder_options
from .parsing import Parser


class InterleavedParser(Parser):
    """Names may stand on both sides of an option."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self.parse_intermixed_args(args, namespace)


def make_parser() -> Parser:
    """The arguments of `topformer data check`."""
    parser = InterleavedParser(__doc__)
    parser.add_argument("--config-file", metavar="FILE")
    parser.add_argument("--json", metavar="FILE", help="where the whole report is written as JSON")
    add_folder_options(parser)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="registered datasets; with --config-file, KEY VALUE pairs that override it",
    )
    return parser


def run(args: argparse.Namespace, parser: Parser) -> int:
    """Print what is found; the exit status is 1 where there is an error."""
    if not (args.config_file or args.names or has_folder_options(args)):
        parser.error("name a --config-file, registered datasets, or --images and their labels")
    if args.json and os.path.isdir(args.json):  # before the work, not after
        raise InputError(f"--json {args.json} is a folder: name a file")
    if has_folder_options(args):
        if args.config_file or args.names:
            raise InputError("--images goes without --config-file and names")
        with folder_dataset(args) as name:
            report = inspect_datasets([name])
    elif args.config_file:
        report = inspect_config(load_config(args.config_file, args.names))
    else:
        report = inspect_datasets(args.names)
    print(printable(str(report)))
    if args.json:
        write_json(args.json, report.as_dict(), indent=1)
    return 1 if report.errors else 0
