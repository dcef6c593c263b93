"""Check on a GPU what the tests check on a CPU, and time it; in under 8 minutes.

  make check-gpu
  python -m benchmarks.gpu_check --output gpu.md

Each line of the report says pass, fail, or not here: what it needs is not on this machine. Without
a GPU the same checks run on the CPU in a short form, with tiny images. CamVid and BCCD are trained
on where they are prepared, else images that are made here. Exit status 1 where a check failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile

import torch

from topformer_d2.engine import end_logs
from topformer_d2.errors import show_input_errors
from topformer_d2.files import check_output, write_beside

from .report import Report
from .results import add_results
from .setting import Setting
from .speed import add_speed
from .training import add_training


def check_gpu(device: str) -> Report:
    """Run all checks on "cuda", or in the short form on "cpu"."""
    report = Report(device, is_short=device == "cpu")
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device, report.is_short, folder)
        add_training(report, setting)
        add_results(report, setting)
        add_speed(report, setting)
        end_logs()
    return report


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the report, Markdown")
    args = parser.parse_args(words)
    with show_input_errors():
        check_output(args.output, "--output")
        logging.disable(logging.INFO)  # a line for each check is enough
        try:
            report = check_gpu("cuda" if torch.cuda.is_available() else "cpu")
        finally:
            logging.disable(logging.NOTSET)
        write_beside(args.output, report.as_page().encode())
    return int(report.has_failed)


if __name__ == "__main__":
    sys.exit(main())
