"""The command line that the scripts in datasets/ share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, Protocol

from ...errors import printable, show_input_errors, shown
from ...files import write_beside
from ..builtin import datasets_root
from .sem_seg import prepare_sem_seg

_SHOWN = 20  # problems of a report on the terminal; a half-copied folder makes tens of thousands


class _Report(Protocol):
    problems: list[str]
    problems_file: Path

    def summary(self) -> str: ...


def source_parser(description: str) -> argparse.ArgumentParser:
    """A parser with --source, --root and --max-gib."""
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
    parser.add_argument(
        "--max-gib",
        type=float,
        metavar="N",
        help="read files of up to N GiB; default: 1 for a .json, 1/64 for an .xml, 1/8 for others",
    )
    return parser


def run(prepare: Callable[[], Iterable[_Report]], folder: str) -> NoReturn:
    """Print what `prepare` reports; exit status 1 when something is missing or corrupt."""
    with show_input_errors():
        reports = list(prepare())
        for report in reports:
            print(printable(report.summary()))
            show_problems(report)
    print(f"written below {shown(folder)}")
    sys.exit(1 if any(report.problems for report in reports) else 0)


def show_problems(report: _Report) -> None:
    """Print a report's problems; where they are many, some of them and the file with all."""
    for problem in report.problems[:_SHOWN]:
        print(f"PROBLEM: {printable(problem, newlines=True)}")
    if len(report.problems) > _SHOWN:
        write_beside(
            report.problems_file,
            "\n".join([*report.problems, ""]).encode(errors="backslashreplace"),
        )
        print(
            f"PROBLEM: {len(report.problems)} in all, {_SHOWN} of them above; "
            f"{shown(report.problems_file)} lists them"
        )
    else:
        report.problems_file.unlink(missing_ok=True)  # an earlier run's


def main(dataset: str, description: str) -> NoReturn:
    """Prepare a segmentation dataset, a key of DATASETS, from --source."""
    args = source_parser(description).parse_args()

    def prepare():
        return prepare_sem_seg(dataset, args.source, args.root, max_gib=args.max_gib).values()

    run(prepare, args.root)
