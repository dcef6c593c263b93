"""The command line that the scripts in datasets/ share."""

from __future__ import annotations

import argparse
import os
import sys

from ...errors import show_input_errors
from ..builtin import datasets_root
from .sem_seg import expected_pairs, prepare_sem_seg


def source_parser(description: str) -> argparse.ArgumentParser:
    """A parser with --source and --root."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", required=True, help="the official archive (.zip, .tar) or its unpacked folder"
    )
    parser.add_argument(
        "--root",
        default=datasets_root(),
        help="target (default: DETECTRON2_DATASETS or ./datasets)",
    )
    return parser


def main(dataset: str, description: str) -> None:
    """Prepare `dataset` from --source; exit status 1 when something is missing or corrupt."""
    args = source_parser(description).parse_args()
    with show_input_errors():
        reports = prepare_sem_seg(dataset, args.source, args.root)
    for split, report in reports.items():
        print(f"{split}: {report.summary(expected_pairs(dataset)[split])}")
    absent = sorted(expected_pairs(dataset).keys() - reports.keys())
    if absent:
        print(f"not in this source: {', '.join(absent)}")
    print(f"written below {os.path.abspath(args.root)}")
    sys.exit(1 if any(report.problems for report in reports.values()) else 0)
