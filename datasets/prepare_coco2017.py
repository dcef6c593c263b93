#!/usr/bin/env python
"""Prepare COCO 2017's boxes (80 classes) for Detectron2's builtin loader.

The layout that it writes is drawn in datasets/README.md.

Nothing is converted: each image is decoded once and held against its entry in the JSON.
Images that stand in coco/{train,val}2017 already need no --source.

  python datasets/prepare_coco2017.py \\
    --source train2017.zip \\
    --source val2017.zip \\
    --source annotations_trainval2017.zip
"""

from topformer_d2.data.prepare.cli import main

if __name__ == "__main__":
    main("coco2017", __doc__)
