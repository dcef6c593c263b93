#!/usr/bin/env python
"""Draw images of a dataset beside their labels and boxes, as one picture.

  python tools/view_dataset.py --config-file configs/seg_topformer_t_camvid.yaml --output raw.png
  python tools/view_dataset.py --config-file configs/seg_topformer_t_camvid.yaml --augmented \\
    --output augmented.png

--augmented shows what the model gets in training, less normalisation and padding: three draws of
each image.
"""

from topformer_d2.cli import config_parser
from topformer_d2.config import load_config
from topformer_d2.data import check_config
from topformer_d2.data.images import check_image_name, write_image
from topformer_d2.errors import InputError, printable, show_input_errors, shown
from topformer_d2.visualization import sample_sheet

DRAWS = 3


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TRAIN")
    parser.add_argument("--num-images", type=int, default=3)
    parser.add_argument("--augmented", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of the augmentation; default: 0")
    args = parser.parse_args()
    with show_input_errors():
        if args.num_images < 1:
            raise InputError(f"--num-images is {args.num_images}; it takes 1 or more")
        if args.seed < 0:
            raise InputError(f"--seed is {args.seed}; it takes 0 or more")
        check_image_name(args.output)  # before the work, not after
        cfg = load_config(args.config_file, args.opts)
        name = args.dataset or next(iter(cfg.DATASETS.TRAIN), None)
        if not name:
            raise InputError("DATASETS.TRAIN is empty: name a --dataset")
        cfg.DATASETS.TEST = (name,)  # which need not have labels for all of the model's tasks
        check_config(cfg, train=False)
        draws = DRAWS if args.augmented else 0
        sheet, files = sample_sheet(cfg, name, args.num_images, draws=draws, seed=args.seed)
        write_image(args.output, sheet[:, :, ::-1])
    for row, file in enumerate(files, start=1):
        print(f"row {row}: {printable(file, newlines=True)}")
    print(f"wrote {shown(args.output)}")


if __name__ == "__main__":
    main()
