#!/usr/bin/env python
"""`topformer data prepare coco_stuff10k`, for a checkout."""

import sys

from topformer_d2.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "prepare", "coco_stuff10k", *sys.argv[1:]]))
