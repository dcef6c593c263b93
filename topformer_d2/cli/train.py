"""Train a TopFormer with Detectron2's usual arguments.

  topformer train --config-file configs/seg_topformer_t_camvid.yaml
  topformer train --config-file configs/seg_topformer_b.yaml --num-gpus 8 MODEL.WEIGHTS in1k.pth
  topformer train --config-file configs/seg_topformer_b.yaml --num-gpus 8 --resume
  topformer train --config-file configs/seg_topformer_t_camvid.yaml --eval-only \\
    MODEL.WEIGHTS output/seg_topformer_t_camvid/model_final.pth

With MODEL.DEVICE cpu at the end, --num-gpus is the number of processes on the CPU.
Any key of the config is overridden by KEY VALUE at the end.
"""

from __future__ import annotations

import argparse
import contextlib

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from ..checkpoint import SafeCheckpointer
from ..config import check_parts, load_config
from ..data import check_config
from ..engine import StopRequested, Trainer, describe_death, end_logs, setup_run
from ..engine.failures import LostProcessError, describe_lost
from ..engine.launch import launch
from ..engine.loggers import check_loggers
from ..engine.processes import check_processes, check_single_run
from ..errors import InputError, about, show_error
from ..files import locked_output
from ..logs import get_logger
from ..modeling import build_model
from .parsing import Parser
from .reporting import test_and_report

logger = get_logger(__name__)


def make_parser() -> Parser:
    """The arguments of `topformer train`, which are Detectron2's."""
    # Its own --help is left for ours.
    return Parser(__doc__, parents=[default_argument_parser()], conflict_handler="resolve")


def run(args: argparse.Namespace, parser: Parser) -> int:
    """Train or evaluate in as many processes as are asked for; the exit status."""
    benchmarked = torch.backends.cudnn.benchmark
    try:
        launch(
            run_process,
            check(args),
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            device=asked_device(args),
            args=(args,),
        )
    except LostProcessError as e:
        show_error(parser.reword(describe_lost(e, args.num_machines)))
        return 1
    except torch.multiprocessing.ProcessExitedException as e:
        if e.exit_code >= 0:
            return e.exit_code  # that process has said what was wrong
        rank = args.machine_rank * args.num_gpus + e.error_index
        message, status = describe_death(rank, e.exit_code)
        show_error(parser.reword(message))
        return status
    finally:
        torch.backends.cudnn.benchmark = benchmarked  # which Detectron2 sets by the config
        end_logs()
    return 0


def check(args: argparse.Namespace) -> int:
    """Say what is wrong once, before any process is started; returns the number of processes."""
    check_single_run()
    if not args.config_file and "MODEL.META_ARCHITECTURE" not in args.opts[::2]:
        raise InputError("name what to train: --config-file FILE")
    with about("--num-gpus, --num-machines, --machine-rank"):
        processes = check_processes(
            args.num_gpus, args.num_machines, args.machine_rank, asked_device(args)
        )
        if args.num_machines > 1 and args.dist_url == "auto":
            raise InputError("several machines need --dist-url tcp://HOST:PORT of the first")
    cfg = load_config(args.config_file, args.opts)
    check_parts(cfg)
    check_config(cfg, train=not args.eval_only)
    if not args.eval_only:
        check_loggers(cfg)
    return processes


def asked_device(args: argparse.Namespace) -> str:
    """ "cpu" where the command asks for it, else "cuda".

    A machine without a GPU has the CPU in its config as well, but with --num-gpus 8 the user who
    started there has expected GPUs.
    """
    keys, values = args.opts[::2], args.opts[1::2]
    return "cpu" if dict(zip(keys, values, strict=False)).get("MODEL.DEVICE") == "cpu" else "cuda"


def run_process(args: argparse.Namespace) -> dict | None:
    """One process of the run; returns the evaluation's results."""
    with contextlib.ExitStack() as stack:
        cfg = load_config(args.config_file, args.opts)
        cfg.freeze()
        if comm.is_main_process() and cfg.OUTPUT_DIR:
            purpose = "evaluation" if args.eval_only else "training"
            stack.enter_context(locked_output(cfg.OUTPUT_DIR, purpose))
        setup_run(cfg, args)
        if args.eval_only:
            return evaluate(cfg, args.resume, getattr(args, "report", None))
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        try:
            return trainer.train()
        except StopRequested as e:
            logger.info("%s; the same command with --resume goes on from there", e)
            raise SystemExit(e.status) from None


def evaluate(cfg: CfgNode, resume: bool, report: str | None = None) -> dict:
    """Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint of OUTPUT_DIR.

    With TEST.AUG.ENABLED segmentation is evaluated with test-time augmentation as well. What the
    model gets wrong is shown in the folder `report`, where one is named.
    """
    model = build_model(cfg)  # without a teacher
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR, require_all=True)
    if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
        raise InputError("there are no weights to evaluate: add MODEL.WEIGHTS FILE to the command")
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = test_and_report(cfg, model, report) if report else Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_tta(cfg, model))
    return results
