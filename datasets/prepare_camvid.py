#!/usr/bin/env python
"""Prepare CamVid (the SegNet tutorial's copy, 11 classes).

The layout that it writes is drawn in datasets/README.md. CamVid has no boxes; those that are
written are derived: one around each connected region of cars, pedestrians or bicyclists.
"""

from topformer_d2.data.prepare.cli import run, source_parser
from topformer_d2.data.prepare.regions import prepare_camvid

if __name__ == "__main__":
    args = source_parser(__doc__).parse_args()
    run(
        lambda: prepare_camvid(args.source, args.root, max_gib=args.max_gib).values(),
        args.root,
    )
