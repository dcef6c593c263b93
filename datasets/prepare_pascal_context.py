#!/usr/bin/env python
"""`topformer data prepare pascal_context`, for a checkout."""

import sys

from topformer_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "prepare", "pascal_context", *sys.argv[1:]]))
