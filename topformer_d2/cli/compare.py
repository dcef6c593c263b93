"""Compare what two models get wrong, by the folders that `topformer eval --report` wrote.

  topformer eval --config-file t.yaml --weights t/model_final.pth --report mistakes_t
  topformer eval --config-file s.yaml --weights s/model_final.pth --report mistakes_s
  topformer compare mistakes_t mistakes_s --output compare.html

The page has the figures of both, their differences by class, and the pictures of both. It needs
neither the models nor the data.
"""

from __future__ import annotations

import argparse

from ..analysis import mistakes
from ..errors import shown
from ..files import check_local_output
from .parsing import Parser


def make_parser() -> Parser:
    """The arguments of `topformer compare`."""
    parser = Parser(__doc__)
    parser.add_argument("first", metavar="FOLDER_A")
    parser.add_argument("second", metavar="FOLDER_B")
    parser.add_argument("--output", required=True, metavar="FILE", help="a page, .html")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Write the page."""
    check_local_output(args.output, "output", ".html")
    mistakes.write_page(args.output, [args.first, args.second])
    print(f"wrote {shown(args.output)}")
