"""Draw images of a dataset beside their labels and boxes, and predictions, as one picture.

  topformer data view --config-file configs/seg_topformer_t_camvid.yaml --output raw.png
  topformer data view --images photos --labels photos --output raw.png
  topformer data view --config-file configs/seg_topformer_t_camvid.yaml --augmented \\
    --output augmented.png
  topformer data view --config-file configs/seg_topformer_t_camvid.yaml \\
    --weights output/seg_topformer_t_camvid/model_final.pth --output predictions.png
  topformer data view --model camvid.onnx --dataset camvid_sem_seg_val --output predictions.png
  topformer data view --config-file configs/seg_topformer_t_camvid.yaml \\
    --list mistakes/suspects.json --output suspects.png

--augmented shows what the model gets in training, less normalisation and padding: three draws of
each image. --list draws the first --num-images suspected label errors that
`topformer eval --report` has listed, the surest first.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack

from detectron2.data import MetadataCatalog

from ..config import load_config
from ..data import check_config
from ..data.images import check_image_name, write_image
from ..data.registered import check_dataset_present, load_records
from ..data.suspects import read_suspects
from ..errors import InputError, printable, shortened, shown
from ..inference import Predictor
from ..tasks import PIXELS, TASKS
from ..visualization import dataset_sheet, prediction_sheet, sample_sheet, suspect_sheet
from .folder_options import add_folder_options, folder_dataset, has_folder_options
from .parsing import Parser, add_min_score, add_opts, min_score_of

DRAWS = 3


def make_parser() -> Parser:
    """The arguments of `topformer data view`."""
    parser = Parser(__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--config-file", metavar="FILE")
    what.add_argument(
        "--model", metavar="FILE", help="what `topformer export` wrote: draw its predictions"
    )
    parser.add_argument("--weights", metavar="FILE", help="draw the config's predictions")
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="default: the first of DATASETS.TRAIN; of predictions and --list, of DATASETS.TEST",
    )
    parser.add_argument("--num-images", type=int, default=3)
    parser.add_argument("--augmented", action="store_true")
    parser.add_argument(
        "--list", metavar="FILE", help="draw the suspected label errors of a suspects.json"
    )
    parser.add_argument("--seed", type=int, help="of --augmented; default: 0")
    add_min_score(parser)
    add_folder_options(parser)
    add_opts(parser)
    return parser


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Draw the sheet, and print which file is in which row."""
    if not (args.config_file or args.model or has_folder_options(args)):
        parser.error("name a --config-file, a --model, or --images and their labels")
    if args.num_images < 1:
        raise InputError(f"--num-images is {args.num_images}; it takes 1 or more")
    seed, min_score = args.seed or 0, min_score_of(args)
    if seed < 0:
        raise InputError(f"--seed is {seed}; it takes 0 or more")
    if args.seed is not None and not args.augmented:
        raise InputError("--seed is of --augmented: give both or none")
    has_model = args.weights or args.model
    if has_folder_options(args) and (
        args.config_file or args.weights or args.dataset or args.augmented or args.list or args.opts
    ):
        raise InputError(
            "--images goes alone or with --model: for --augmented, --list, --weights and KEY VALUE "
            "pairs write a config with DATASETS.FOLDERS"
        )
    if has_model and args.augmented:
        raise InputError("--augmented does not go with predictions: they are of whole images")
    if not has_model and args.min_score is not None:
        raise InputError("--min-score is of predictions: name --weights, or leave it out")
    if args.list and (has_model or args.augmented):
        raise InputError("--list goes with --config-file alone: leave the model or --augmented out")
    check_image_name(args.output)  # before the work, not after
    if args.list:
        suspects = read_suspects(args.list)[: args.num_images]
        if not suspects:
            raise InputError(f"--list {args.list} is empty: there is nothing to draw")
        cfg, name = load_dataset(args, "TEST")
        check_no_source(args.output, name)
        sheet = suspect_sheet(cfg, name, suspects)
        files = [f"{suspect.file_name}: {suspect.text}" for suspect in suspects]
    elif has_model:
        with ExitStack() as stack:
            if has_folder_options(args):
                args.dataset = stack.enter_context(folder_dataset(args))
            predictor, name = load_model(args)
            check_no_source(args.output, name)
            sheet = prediction_sheet(predictor, name, args.num_images, min_score=min_score)
        files = []
    elif has_folder_options(args):
        with folder_dataset(args) as name:
            check_no_source(args.output, name)
            sheet, files = dataset_sheet(name, args.num_images)
    else:
        cfg, name = load_dataset(args, "TRAIN")
        check_no_source(args.output, name)
        draws = DRAWS if args.augmented else 0
        sheet, files = sample_sheet(cfg, name, args.num_images, draws=draws, seed=seed)
    write_image(args.output, sheet[:, :, ::-1])
    for row, file in enumerate(files, start=1):
        print(f"row {row}: {printable(file, newlines=True)}")
    print(f"wrote {shown(args.output)}")


def check_no_source(output: str, dataset_name: str) -> None:
    """InputError where the picture would replace an image or a label map of the dataset."""
    if not os.path.exists(output):
        return
    for record in load_records(dataset_name):
        for key in ("file_name", PIXELS.record_key):
            if key in record and os.path.realpath(record[key]) == os.path.realpath(output):
                raise InputError(f"--output {output} is a file of the dataset: name another file")


def load_dataset(args: argparse.Namespace, split: str) -> tuple:
    """The config, and --dataset or the first of its DATASETS.TRAIN or TEST, which fits it."""
    cfg = load_config(args.config_file, args.opts)
    name = args.dataset or next(iter(cfg.DATASETS[split]), None)
    if not name:
        raise InputError(f"DATASETS.{split} is empty: name a --dataset")
    if args.dataset or split == "TRAIN":
        cfg.DATASETS.TEST = (name,)  # which need not have labels for all of the model's tasks
    check_config(cfg, train=False)
    return cfg, name


def load_model(args: argparse.Namespace) -> tuple[Predictor, str]:
    """What predicts, and the dataset."""
    if not args.model:
        cfg, name = load_dataset(args, "TEST")
        return Predictor(cfg, args.weights), name
    if args.weights or args.opts:
        raise InputError("--model has its config and weights inside: leave those out")
    if not args.dataset:
        raise InputError("--model is drawn on a --dataset: name one")
    check_dataset_present(args.dataset)
    predictor = Predictor(args.model)
    for task in (TASKS[name] for name in predictor.info.tasks):
        names = MetadataCatalog.get(args.dataset).get(task.classes_field) or ()
        count = len(getattr(predictor.info, task.table).names)
        if names and len(names) != count:
            raise InputError(
                f"the labels have {len(names)} classes ({shortened(list(names))}), and --model "
                f"{args.model} has {count}: name labels of its classes"
            )
    return predictor, args.dataset
