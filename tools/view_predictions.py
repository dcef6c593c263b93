#!/usr/bin/env python
"""`topformer data view`, for a checkout."""

import sys

from topformer_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "view", *sys.argv[1:]]))
