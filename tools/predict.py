#!/usr/bin/env python
"""Segment images or find objects in them: overlays, label maps as PNG, boxes as JSON lines.

  python tools/predict.py --config-file configs/seg_topformer_t_camvid.yaml \\
    --weights output/seg_topformer_t_camvid/model_final.pth --input photos/ --output predictions/
"""

import os
import sys

from topformer_d2.cli import model_parser
from topformer_d2.config import load_config
from topformer_d2.data.files import list_images
from topformer_d2.errors import show_input_errors
from topformer_d2.inference import build_predictor
from topformer_d2.visualization import predict_files


def main() -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--input", required=True, help="an image, a folder or a quoted glob")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--min-score", type=float, default=0.5, help="boxes below it are not drawn; default: 0.5"
    )
    parser.add_argument(
        "--save-json", metavar="FILE", help="all boxes as COCO results, one JSON object a line"
    )
    args = parser.parse_args()
    with show_input_errors():
        paths = list_images(args.input)
        predictor = build_predictor(load_config(args.config_file, args.opts), args.weights)
        problems = predict_files(
            predictor, paths, args.output, min_score=args.min_score, json_file=args.save_json
        )
    done = len(paths) - len(problems)
    print(f"{done} of {len(paths)} images done: {os.path.abspath(args.output)}")
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
