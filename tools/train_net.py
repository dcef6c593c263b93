#!/usr/bin/env python
"""Train or evaluate a TopFormer with Detectron2's usual arguments.

python tools/train_net.py --config-file configs/seg_topformer_t_camvid.yaml
python tools/train_net.py --config-file ... --resume
python tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
"""

import contextlib
import sys

import torch
from detectron2.engine import default_argument_parser, launch
from detectron2.utils import comm

from topformer_d2.checkpoint import SafeCheckpointer
from topformer_d2.config import check_parts, load_config
from topformer_d2.data import check_config
from topformer_d2.engine import StopRequested, Trainer, describe_death, setup_run
from topformer_d2.engine.processes import check_processes, check_single_run
from topformer_d2.errors import InputError, about, show_input_errors
from topformer_d2.files import locked_output
from topformer_d2.logs import get_logger

logger = get_logger("topformer_d2.train_net")


def evaluate(cfg, resume: bool) -> dict:
    """Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint of OUTPUT_DIR.

    With TEST.AUG.ENABLED segmentation is evaluated with test-time augmentation as well.
    """
    model = Trainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR, require_all=True)
    if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
        raise InputError("--eval-only has no weights: add MODEL.WEIGHTS FILE to the command")
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_tta(cfg, model))
    return results


def main(args) -> dict | None:
    """One process of the run; returns the evaluation's results."""
    with show_input_errors(), contextlib.ExitStack() as stack:
        cfg = load_config(args.config_file, args.opts)
        cfg.freeze()
        if comm.is_main_process() and cfg.OUTPUT_DIR:
            purpose = "evaluation" if args.eval_only else "training"
            stack.enter_context(locked_output(cfg.OUTPUT_DIR, purpose))
        setup_run(cfg, args)
        if args.eval_only:
            return evaluate(cfg, args.resume)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        try:
            return trainer.train()
        except StopRequested as e:
            logger.info("%s; the same command with --resume goes on from there", e)
            sys.exit(128 + e.signal)  # as a shell has it


def check(args) -> int:
    """Say what is wrong once, before any process is started; returns the number of processes."""
    with show_input_errors():
        check_single_run()
        with about("--num-gpus, --num-machines, --machine-rank"):
            processes = check_processes(args.num_gpus, args.num_machines, args.machine_rank)
            if args.num_machines > 1 and args.dist_url == "auto":
                raise InputError("several machines need --dist-url tcp://HOST:PORT of the first")
        cfg = load_config(args.config_file, args.opts)
        check_parts(cfg)
        check_config(cfg, train=not args.eval_only)
    return processes


if __name__ == "__main__":
    arguments = default_argument_parser(epilog=__doc__).parse_args()
    try:
        launch(
            main,
            check(arguments),
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            args=(arguments,),
        )
    except torch.multiprocessing.ProcessExitedException as e:
        if e.exit_code >= 0:
            sys.exit(e.exit_code)  # that process has said what was wrong
        rank = arguments.machine_rank * arguments.num_gpus + e.error_index
        message, status = describe_death(rank, e.exit_code)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(status)
