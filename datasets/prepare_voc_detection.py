#!/usr/bin/env python
"""Prepare a PASCAL-VOC-style folder (Annotations/*.xml, JPEGImages/, ImageSets/Main/) as COCO JSON.

The layout that it writes is drawn in datasets/README.md. BCCD, for example:

  python datasets/prepare_voc_detection.py --source BCCD --name bccd
"""

import os
import sys

from topformer_d2.data.prepare.cli import source_parser
from topformer_d2.data.prepare.voc import prepare_voc
from topformer_d2.errors import show_input_errors

if __name__ == "__main__":
    parser = source_parser(__doc__)
    parser.add_argument("--name", required=True, help="folder below the target's root")
    parser.add_argument("--classes", nargs="+", help="default: all that occur, sorted")
    args = parser.parse_args()
    folder = os.path.join(args.root, args.name)
    with show_input_errors():
        report = prepare_voc(args.source, folder, args.classes)
    print(report.summary())
    print(f"written below {os.path.abspath(folder)}")
    sys.exit(1 if report.problems else 0)
