"""Prepare a dataset for training from the files of its official site.

  topformer data prepare ade20k --source ADEChallengeData2016.zip
  topformer data prepare camvid --source CamVid
  topformer data prepare coco2017 --source train2017.zip --source val2017.zip \\
    --source annotations_trainval2017.zip
  topformer data prepare voc_detection --source BCCD --name bccd
  topformer data prepare synthetic --num-train 400 --num-val 80

Every pair is checked, and what is missing or corrupt is said (exit status 1). It can be stopped and
repeated at any time. `topformer data prepare NAME --help` says more of each dataset.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from ..data.builtin import datasets_root
from ..data.prepare.pixel_datasets import prepare_sem_seg
from ..data.prepare.regions import prepare_camvid
from ..data.prepare.voc import prepare_voc
from ..data.synthetic import write_synthetic
from ..errors import printable, shown
from ..files import write_beside
from .parsing import Parser

_SHOWN = 20  # problems of a report on the terminal; a half-copied folder makes tens of thousands
_ABOUT = {
    "ade20k": """Prepare ADE20K for scene parsing (ADEChallengeData2016, 150 classes).

  topformer data prepare ade20k --source ADEChallengeData2016.zip
""",
    "camvid": """Prepare CamVid (the SegNet tutorial's copy, 11 classes).

  topformer data prepare camvid --source CamVid

CamVid has no boxes; those that are written are derived: one around each connected region of cars,
pedestrians or bicyclists.
""",
    "cityscapes": """Prepare Cityscapes (fine annotations, 19 classes) for Detectron2's loader.

  topformer data prepare cityscapes \\
    --source leftImg8bit_trainvaltest.zip \\
    --source gtFine_trainvaltest.zip
""",
    "coco2017": """Prepare COCO 2017's boxes (80 classes) for Detectron2's builtin loader.

Nothing is converted: each image is decoded once and held against its entry in the JSON.
Images that stand in coco/{train,val}2017 already need no --source.

  topformer data prepare coco2017 \\
    --source train2017.zip \\
    --source val2017.zip \\
    --source annotations_trainval2017.zip
""",
    "coco_stuff10k": """Prepare COCO-Stuff-10k v1.1 (171 classes).

  topformer data prepare coco_stuff10k --source cocostuff-10k-v1.1.zip
""",
    "coco_stuff164k": """Prepare COCO-Stuff-164k (171 classes) on COCO 2017's images.

Images that stand in coco/{train,val}2017 already need no --source. The last archive has the boxes,
for training both tasks on the same images; its instances_{train,val}2017.json are copied.

  topformer data prepare coco_stuff164k \\
    --source train2017.zip \\
    --source val2017.zip \\
    --source stuffthingmaps_trainval2017.zip \\
    --source annotations_trainval2017.zip
""",
    "pascal_context": """Prepare PASCAL Context (59 classes, and 60 with background).

  topformer data prepare pascal_context \\
    --source VOCtrainval_03-May-2010.tar \\
    --source trainval_merged.json
""",
    "voc_detection": """Prepare a PASCAL-VOC-style folder as COCO JSON.

It has Annotations/*.xml, JPEGImages/ and ImageSets/Main/. BCCD, for example:

  topformer data prepare voc_detection --source BCCD --name bccd
""",
    "synthetic": """Make the synthetic dataset: textured shapes with labels and boxes.

  topformer data prepare synthetic --num-train 400 --num-val 80
""",
}


class _Report(Protocol):
    problems: list[str]
    problems_file: Path

    def summary(self) -> str: ...


class _DatasetParser(Parser):
    """Says itself which of its options is mistyped, which the parser above does not know."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def make_parser() -> Parser:
    """The arguments of `topformer data prepare`: a parser for each dataset."""
    parser = Parser(__doc__, {"sources": "--source", "source": "--source", "max_gib": "--max-gib"})
    datasets = parser.add_subparsers(
        dest="dataset", metavar="NAME", required=True, parser_class=_DatasetParser
    )
    for name, about in _ABOUT.items():
        added = datasets.add_parser(
            name,
            prog=f"topformer data prepare {name}",
            description=about,
            help=about.partition("\n")[0],
        )
        added.add_argument(
            "--root",
            default=datasets_root(),
            help="target (default: DETECTRON2_DATASETS or ./datasets)",
        )
        if name == "synthetic":
            added.add_argument("--num-train", type=int, default=400, help="default: 400")
            added.add_argument("--num-val", type=int, default=80, help="default: 80")
            added.add_argument("--seed", type=int, default=0, help="default: 0")
            continue
        added.add_argument(
            "--source",
            required=True,
            action="append",
            metavar="ARCHIVE_OR_FOLDER",
            help="what the official site hands out (.zip, .tar, .json), or its unpacked folder; "
            "once for each archive",
        )
        added.add_argument(
            "--max-gib",
            type=float,
            metavar="N",
            help="read files of up to N GiB; default: 1 for a .json, 1/64 for an .xml, 1/8 for "
            "others",
        )
        if name == "voc_detection":
            added.add_argument("--name", required=True, help="folder below the target's root")
            added.add_argument("--classes", nargs="+", help="default: all that occur, sorted")
    return parser


def run(args: argparse.Namespace, parser: Parser) -> int:
    """Prepare, and print the report; the exit status is 1 where something is missing or corrupt."""
    if args.dataset == "synthetic":
        folder = write_synthetic(args.root, args.num_train, args.num_val, args.seed)
        print(f"synthetic dataset: {shown(folder)}")
        return 0
    folder = args.root
    if args.dataset == "voc_detection":
        folder = os.path.join(args.root, args.name)
        reports: Iterable[_Report] = [
            prepare_voc(args.source, folder, args.classes, max_gib=args.max_gib)
        ]
    elif args.dataset == "camvid":
        reports = prepare_camvid(args.source, args.root, max_gib=args.max_gib).values()
    else:
        reports = prepare_sem_seg(
            args.dataset, args.source, args.root, max_gib=args.max_gib
        ).values()
    for report in reports:
        print(printable(report.summary()))
        show_problems(report, parser.reword)
    print(f"written below {shown(folder)}")
    return 1 if any(report.problems for report in reports) else 0


def show_problems(report: _Report, reword: Callable[[str], str] = str) -> None:
    """Print a report's problems; where they are many, some of them and the file with all.

    Args:
        reword: what is done to each, as to put options for parameters.
    """
    for problem in report.problems[:_SHOWN]:
        print(f"PROBLEM: {printable(reword(problem), newlines=True)}")
    if len(report.problems) > _SHOWN:
        write_beside(
            report.problems_file,
            "\n".join([*report.problems, ""]).encode(errors="backslashreplace"),
        )
        print(
            f"PROBLEM: {len(report.problems)} in all, {_SHOWN} of them above; "
            f"{shown(report.problems_file)} lists them"
        )
    else:
        report.problems_file.unlink(missing_ok=True)  # an earlier run's
