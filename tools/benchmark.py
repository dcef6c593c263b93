#!/usr/bin/env python
"""`topformer benchmark`, for a checkout."""

import sys

from topformer_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
