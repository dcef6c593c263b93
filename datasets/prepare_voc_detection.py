#!/usr/bin/env python
"""`topformer data prepare voc_detection`, for a checkout."""

import sys

from topformer_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "prepare", "voc_detection", *sys.argv[1:]]))
