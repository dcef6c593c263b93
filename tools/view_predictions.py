#!/usr/bin/env python
"""Draw images of DATASETS.TEST beside their truth and their prediction, as one picture.

  python tools/view_predictions.py --config-file configs/seg_topformer_t_camvid.yaml \\
    --weights output/seg_topformer_t_camvid/model_final.pth --output sheet.png
"""

from topformer_d2.cli import model_parser
from topformer_d2.config import load_config
from topformer_d2.data import check_config
from topformer_d2.data.images import check_image_name, write_image
from topformer_d2.errors import InputError, show_input_errors, shown
from topformer_d2.inference import Predictor
from topformer_d2.visualization import prediction_sheet


def main() -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument("--num-images", type=int, default=3)
    parser.add_argument(
        "--min-score", type=float, default=0.5, help="boxes below it are not drawn; default: 0.5"
    )
    args = parser.parse_args()
    with show_input_errors():
        if args.num_images < 1:
            raise InputError(f"--num-images is {args.num_images}; it takes 1 or more")
        check_image_name(args.output)  # before the work, not after
        cfg = load_config(args.config_file, args.opts)
        check_config(cfg, train=False)
        predictor = Predictor(cfg, args.weights)
        dataset = cfg.DATASETS.TEST[0]
        sheet = prediction_sheet(predictor, dataset, args.num_images, min_score=args.min_score)
        write_image(args.output, sheet[:, :, ::-1])
    print(f"wrote {shown(args.output)}")


if __name__ == "__main__":
    main()
