#!/usr/bin/env python
"""Train or evaluate a TopFormer with Detectron2's usual arguments.

python tools/train_net.py --config-file configs/seg_topformer_t_camvid.yaml
python tools/train_net.py --config-file ... --resume
python tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
"""

import logging
import sys

import torch
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from topformer_d2.checkpoint import SafeCheckpointer
from topformer_d2.config import load_config
from topformer_d2.data import check_config
from topformer_d2.engine import Trainer
from topformer_d2.engine.hooks import StopRequested
from topformer_d2.errors import show_input_errors

logger = logging.getLogger("topformer_d2.train_net")


def setup(args):
    """The config of this run, checked, with loggers and the output folder ready."""
    cfg = load_config(args.config_file, args.opts)
    cfg.freeze()
    check_config(cfg, train=not args.eval_only)
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="topformer_d2")
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        logger.info("No GPU in use: running on the %s", cfg.MODEL.DEVICE.upper())
    return cfg


def main(args):
    """Train or evaluate; returns the evaluation's results."""
    with show_input_errors():
        cfg = setup(args)
        if args.eval_only:
            model = Trainer.build_model(cfg)
            checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
            checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
            return Trainer.test(cfg, model)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        try:
            return trainer.train()
        except StopRequested as e:
            logger.info("%s; the same command with --resume goes on from there", e)
            sys.exit(130)


if __name__ == "__main__":
    arguments = default_argument_parser(epilog=__doc__).parse_args()
    gpus = arguments.num_gpus if torch.cuda.is_available() else 0
    if arguments.num_gpus > max(1, torch.cuda.device_count()):
        sys.exit(
            f"error: --num-gpus {arguments.num_gpus}, but there are {torch.cuda.device_count()}"
        )
    launch(
        main,
        max(1, gpus),
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments,),
    )
