#!/usr/bin/env python
"""Prepare PASCAL Context (59 classes, and 60 with background).

The layout that it writes is drawn in datasets/README.md.

  python datasets/prepare_pascal_context.py \\
    --source VOCtrainval_03-May-2010.tar \\
    --source trainval_merged.json
"""

from topformer_d2.data.prepare.cli import main

if __name__ == "__main__":
    main("pascal_context", __doc__)
