#!/usr/bin/env python
"""Prepare ADE20K for scene parsing (ADEChallengeData2016, 150 classes).

The layout that it writes is drawn in datasets/README.md.
"""

from topformer_d2.data.prepare.cli import main

if __name__ == "__main__":
    main("ade20k", __doc__)
