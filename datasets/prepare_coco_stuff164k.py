#!/usr/bin/env python
"""Prepare COCO-Stuff-164k (171 classes) on COCO 2017's images.

The layout that it writes is drawn in datasets/README.md.

Images that stand in coco/{train,val}2017 already need no --source. The last archive has the boxes,
for training both tasks on the same images; its instances_{train,val}2017.json are copied.

  python datasets/prepare_coco_stuff164k.py \\
    --source train2017.zip \\
    --source val2017.zip \\
    --source stuffthingmaps_trainval2017.zip \\
    --source annotations_trainval2017.zip
"""

from topformer_d2.data.prepare.cli import main

if __name__ == "__main__":
    main("coco_stuff164k", __doc__)
