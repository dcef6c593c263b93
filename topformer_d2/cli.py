"""Command-line arguments that several tools share."""

from __future__ import annotations

import argparse


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with --config-file and, at the end, KEY VALUE pairs as `opts`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config"
    )
    return parser


def model_parser(description: str) -> argparse.ArgumentParser:
    """config_parser, with --weights."""
    parser = config_parser(description)
    parser.add_argument("--weights", required=True, metavar="FILE", help=".pth or .safetensors")
    return parser
