#!/usr/bin/env python
"""Install Detectron2, as `topformer install-detectron2` does, before topformer_d2 is installed."""

import argparse
import runpy
import sys
from pathlib import Path

INSTALLER = Path(__file__).resolve().parents[1] / "topformer_d2" / "install_detectron2.py"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel-dir", type=Path, help="keep the wheel here instead of installing")
    args = parser.parse_args()
    try:
        runpy.run_path(str(INSTALLER))["install"](args.wheel_dir)
    except RuntimeError as e:
        sys.exit(f"error: {e}")
