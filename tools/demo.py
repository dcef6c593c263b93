#!/usr/bin/env python
"""`topformer demo`, for a checkout."""

import sys

from topformer_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
