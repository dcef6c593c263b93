#!/usr/bin/env python
"""Read every file of datasets and say what is wrong with them.

python tools/check_dataset.py --config-file configs/seg_topformer_t_camvid.yaml
python tools/check_dataset.py camvid_sem_seg_train bccd_val --json report.json

With a config, DATASETS.TRAIN and TEST are held against its model; names alone against what the
datasets say of themselves.

Exit status 1 where there is an error, which stops training or evaluation, or makes it wrong without
a word: a dataset that is not there, cannot be loaded or does not fit the config; a label without an
image; a file that is missing, unreadable or of another size; a label that is no 8-bit map of known
classes; a box that is malformed or of an unknown class; a grey image of 16 bits. All else is a
warning, with status 0: training runs and is right, but the data may not be what was meant.
docs/checking_data.md has the table.
"""

import argparse
import os
import sys

from topformer_d2.config import load_config
from topformer_d2.data.inspection import inspect_config, inspect_datasets
from topformer_d2.errors import InputError, printable, show_input_errors
from topformer_d2.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE")
    parser.add_argument("--json", metavar="FILE", help="where the whole report is written as JSON")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="registered datasets; with --config-file, KEY VALUE pairs that override it",
    )
    args = parser.parse_intermixed_args()
    if not args.config_file and not args.names:
        parser.error("name a --config-file or registered datasets")
    with show_input_errors():
        if args.json and os.path.isdir(args.json):  # before the work, not after
            raise InputError(f"--json {args.json} is a folder: name a file")
        if args.config_file:
            report = inspect_config(load_config(args.config_file, args.names))
        else:
            report = inspect_datasets(args.names)
        print(printable(str(report)))
        if args.json:
            write_json(args.json, report.as_dict(), indent=1)
    sys.exit(1 if report.errors else 0)


if __name__ == "__main__":
    main()
