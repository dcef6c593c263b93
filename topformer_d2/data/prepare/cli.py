"""The command line that the scripts in datasets/ share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

from ...errors import show_input_errors
from ..builtin import datasets_root
from .sem_seg import prepare_sem_seg


class _Report(Protocol):
    problems: list[str]

    def summary(self) -> str: ...


def source_parser(description: str) -> argparse.ArgumentParser:
    """A parser with --source and --root."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        required=True,
        action="append",
        metavar="ARCHIVE_OR_FOLDER",
        help="what the official site hands out (.zip, .tar, .json), or its unpacked folder; "
        "once for each archive",
    )
    parser.add_argument(
        "--root",
        default=datasets_root(),
        help="target (default: DETECTRON2_DATASETS or ./datasets)",
    )
    return parser


def run(prepare: Callable[[], Iterable[_Report]], folder: str) -> NoReturn:
    """Print what `prepare` reports; exit status 1 when something is missing or corrupt."""
    with show_input_errors():
        reports = list(prepare())
    for report in reports:
        print(report.summary())
    print(f"written below {os.path.abspath(folder)}")
    sys.exit(1 if any(report.problems for report in reports) else 0)


def main(dataset: str, description: str) -> NoReturn:
    """Prepare a segmentation dataset, a key of DATASETS, from --source."""
    args = source_parser(description).parse_args()
    run(lambda: prepare_sem_seg(dataset, args.source, args.root).values(), args.root)
