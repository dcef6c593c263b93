#!/usr/bin/env python
"""Prepare COCO-Stuff-10k v1.1 (171 classes).

The layout that it writes is drawn in datasets/README.md.
"""

from topformer_d2.data.prepare.cli import main

if __name__ == "__main__":
    main("coco_stuff10k", __doc__)
