#!/usr/bin/env python
"""`topformer train`, for a checkout."""

import sys

from topformer_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
