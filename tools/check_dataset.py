#!/usr/bin/env python
"""`topformer data check`, for a checkout."""

import sys

if __name__ == "__main__":
    IS_TOPFORMER = True  # for topformer_d2, which then leaves PyTorch to the verb
    from topformer_d2.cli import main

    sys.exit(main(["data", "check", *sys.argv[1:]]))
