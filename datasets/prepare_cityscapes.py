#!/usr/bin/env python
"""Prepare Cityscapes (fine annotations, 19 classes) for Detectron2's builtin loader.

The layout that it writes is drawn in datasets/README.md.

  python datasets/prepare_cityscapes.py \\
    --source leftImg8bit_trainvaltest.zip \\
    --source gtFine_trainvaltest.zip
"""

from topformer_d2.data.prepare.cli import main

if __name__ == "__main__":
    main("cityscapes", __doc__)
