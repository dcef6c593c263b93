"""Install Detectron2 v0.6 as a pure-Python wheel; leave any importable Detectron2 alone.

  topformer install-detectron2
  topformer install-detectron2 --wheel-dir wheels

No package index has Detectron2 under its own name, and building it needs a compiler. Its official
source distribution is downloaded from PyPI, where it has another name, is checked by its SHA-256,
and is changed where today's PyTorch, NumPy and Pillow need it. Its compiled operators (rotated
boxes, the old deformable convolution) are left out; nothing in topformer_d2 uses them.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from .. import install_detectron2
from ..errors import InputError
from .parsing import Parser


def make_parser() -> Parser:
    """The arguments of `topformer install-detectron2`."""
    parser = Parser(__doc__)
    parser.add_argument("--wheel-dir", type=Path, help="keep the wheel here instead of installing")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Install it, unless there is one."""
    try:
        install_detectron2.install(args.wheel_dir)
    except (RuntimeError, subprocess.CalledProcessError) as e:
        raise InputError(str(e)) from e
