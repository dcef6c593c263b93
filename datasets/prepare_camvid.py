#!/usr/bin/env python
"""Prepare CamVid (the SegNet tutorial's copy, 11 classes).

The layout that it writes is drawn in datasets/README.md.
"""

from topformer_d2.data.prepare.cli import main

if __name__ == "__main__":
    main("camvid", __doc__)
