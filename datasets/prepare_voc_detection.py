#!/usr/bin/env python
"""Prepare a PASCAL-VOC-style folder (Annotations/*.xml, JPEGImages/, ImageSets/Main/) as COCO JSON.

The layout that it writes is drawn in datasets/README.md. BCCD, for example:

  python datasets/prepare_voc_detection.py --source BCCD --name bccd
"""

import os

from topformer_d2.data.prepare.cli import run, source_parser
from topformer_d2.data.prepare.voc import prepare_voc

if __name__ == "__main__":
    parser = source_parser(__doc__)
    parser.add_argument("--name", required=True, help="folder below the target's root")
    parser.add_argument("--classes", nargs="+", help="default: all that occur, sorted")
    args = parser.parse_args()
    folder = os.path.join(args.root, args.name)
    run(
        lambda: [prepare_voc(args.source, folder, args.classes, max_gib=args.max_gib)],
        folder,
    )
