"""Train a TopFormer with Detectron2's usual arguments.

  topformer train --config-file configs/seg_topformer_t_camvid.yaml
  topformer train --config-file configs/seg_topformer_b.yaml --num-gpus 8 MODEL.WEIGHTS in1k.pth
  topformer train --config-file configs/seg_topformer_b.yaml --num-gpus 8 --resume
  topformer train --config-file configs/seg_topformer_t_camvid.yaml --eval-only \\
    MODEL.WEIGHTS output/seg_topformer_t_camvid/model_final.pth

With MODEL.DEVICE cpu at the end, --num-gpus is the number of processes on the CPU.
On several machines torchrun or Slurm's srun starts the processes (docs/clusters.md):

  torchrun --nnodes 1:2 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d \\
    --rdzv-endpoint HOST:29400 --rdzv-id JOB -m topformer_d2 train --config-file ...

Any key of the config is overridden by KEY VALUE at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import time

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from ..checkpoint import SafeCheckpointer
from ..config import check_parts, load_config
from ..config.rules import seconds_of
from ..data import check_config
from ..data.loader import check_shares
from ..engine import StopRequested, Trainer, describe_death, end_logs, setup_run
from ..engine.failures import LOST_CONNECTION, LostProcessError, as_lost_process, describe_lost
from ..engine.launch import launch
from ..engine.launched import Launched, end_with_launcher, joined, read_environment
from ..engine.loggers import check_loggers
from ..engine.processes import check_processes, check_single_run
from ..engine.restarts import (
    FirstFailedError,
    agree_to_resume,
    from_first,
    taking_firsts_checkpoint,
)
from ..errors import InputError, about, show_error
from ..files import locked_output
from ..logs import get_logger
from ..modeling import build_model
from .parsing import Parser
from .reporting import test_and_report

logger = get_logger(__name__)

# Seconds for which a run that is started again waits for its former processes to end: a launcher
# gives them 30.
_WAIT_FOR_FORMER = 60.0
# Seconds before a process ends because another one has failed: a launcher names the one that ends
# first as the cause.
_WAIT_FOR_CAUSE = 2.0
_NO_WEIGHTS = "there are no weights to evaluate: add MODEL.WEIGHTS FILE to the command"


def make_parser() -> Parser:
    """The arguments of `topformer train`, which are Detectron2's."""
    # Its own --help is left for ours.
    return Parser(__doc__, parents=[default_argument_parser()], conflict_handler="resolve")


def run(args: argparse.Namespace, parser: Parser) -> int:
    """Train or evaluate in as many processes as are asked for; the exit status."""
    benchmarked = torch.backends.cudnn.benchmark
    try:
        launched = read_launched(args)
        if launched is not None:
            return run_launched(launched, args, parser)
        processes = check(args)
        launch(
            run_process,
            processes,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            device=asked_device(args),
            timeout=timeout_of(args),
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


def read_launched(args: argparse.Namespace) -> Launched | None:
    """What torchrun or srun says of this process; None where the command starts processes."""
    launched = read_environment()
    if launched is None or (args.num_gpus <= 1 and args.num_machines == 1):
        return launched
    if launched.launcher == "torchrun":
        raise InputError(
            "torchrun has started this process, and `num_gpus` and `num_machines` start processes "
            "as well: leave them out"
        )
    return None  # srun has started the command once on each machine


def run_launched(launched: Launched, args: argparse.Namespace, parser: Parser) -> int:
    """Train or evaluate in one of the processes that torchrun or srun has started."""
    end_with_launcher()
    if launched.may_miss and not launched.rank:
        logger.warning(
            "processes that torchrun starts again may not meet: start it with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment (docs/clusters.md)"
        )
    try:
        timeout = timeout_of(args)
    except InputError:
        if launched.local_rank:
            time.sleep(_WAIT_FOR_CAUSE)
            return 1  # the first process of this machine tells it
        raise
    try:
        with joined(launched, asked_device(args), timeout):
            from_first(lambda: check(args, launched.world_size))
            run_process(args, launched)
    except FirstFailedError:
        time.sleep(_WAIT_FOR_CAUSE)
        return LOST_CONNECTION
    except Exception as e:
        lost = as_lost_process(e)
        if lost is None:
            if launched.local_rank:  # an error of all is told by the first of each machine
                time.sleep(_WAIT_FOR_CAUSE)
            raise
        seconds = f"{timeout:g} s"
        show_error(
            parser.reword(
                f"{lost}. A process has ended, or has not answered for {seconds} "
                "(SOLVER.PROCESS_TIMEOUT). Where the launcher starts all processes again, they go "
                "on from the last checkpoint; else the same command with `resume` does"
            )
        )
        time.sleep(_WAIT_FOR_CAUSE)
        return LOST_CONNECTION
    return 0


def timeout_of(args: argparse.Namespace) -> float:
    """SOLVER.PROCESS_TIMEOUT in seconds."""
    return seconds_of(load_config(args.config_file, args.opts).SOLVER.PROCESS_TIMEOUT)


def check(args: argparse.Namespace, launched: int = 0) -> int:
    """Say what is wrong once, before any process works; returns the number of this machine's.

    Args:
        launched: processes of the run, where another launcher has started them.
    """
    check_single_run()
    if not args.config_file and "MODEL.META_ARCHITECTURE" not in args.opts[::2]:
        raise InputError("name what to train: --config-file FILE")
    device = asked_device(args)
    with about("--num-gpus, --num-machines, --machine-rank"):
        processes = check_processes(args.num_gpus, args.num_machines, args.machine_rank, device)
        if args.num_machines > 1 and args.dist_url == "auto":
            raise InputError("several machines need --dist-url tcp://HOST:PORT of the first")
    cfg = load_config(args.config_file, args.opts)
    check_parts(cfg)
    check_config(cfg, train=not args.eval_only)
    if not args.eval_only:
        check_loggers(cfg)
        if not cfg.SOLVER.REFERENCE_WORLD_SIZE:  # by which the batch follows the processes
            check_shares(cfg.SOLVER.IMS_PER_BATCH, launched or processes * args.num_machines)
    elif not (args.resume or cfg.MODEL.WEIGHTS):
        raise InputError(_NO_WEIGHTS)
    return processes


def asked_device(args: argparse.Namespace) -> str:
    """ "cpu" where the command, or on a machine with GPUs its config, asks for it, else "cuda".

    A machine without a GPU has the CPU in each config, but with --num-gpus 8 the user who started
    there has expected GPUs.
    """
    keys, values = args.opts[::2], args.opts[1::2]
    device = dict(zip(keys, values, strict=False)).get("MODEL.DEVICE", "cuda")
    if torch.cuda.is_available():
        device = load_config(args.config_file, args.opts).MODEL.DEVICE
    return "cpu" if device == "cpu" else "cuda"


def run_process(args: argparse.Namespace, launched: Launched | None = None) -> dict | None:
    """One process of the run; returns the evaluation's results."""
    with contextlib.ExitStack() as stack:
        cfg = load_config(args.config_file, args.opts)
        cfg.freeze()
        purpose = "evaluation" if args.eval_only else "training"
        # The other processes wait for the first one meanwhile.
        wait = min(_WAIT_FOR_FORMER, timeout_of(args) / 2) if launched else 0.0

        def hold() -> None:
            stack.enter_context(locked_output(cfg.OUTPUT_DIR, purpose, wait=wait))

        from_first(hold)
        if launched and not args.eval_only:
            resume = agree_to_resume(launched, cfg.OUTPUT_DIR, args.resume)
            args = argparse.Namespace(**{**vars(args), "resume": resume})
        setup_run(cfg, args)
        if args.eval_only:
            return evaluate(cfg, args.resume, getattr(args, "report", None))
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        try:
            return trainer.train()
        except StopRequested as e:
            logger.info("%s; the same command with --resume goes on from there", e)
            if e.signal is None and launched and launched.launcher == "torchrun":
                return None  # which would start a process with another status than 0 again
            raise SystemExit(e.status) from None


def evaluate(cfg: CfgNode, resume: bool, report: str | None = None) -> dict:
    """Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint of OUTPUT_DIR.

    Of several processes all evaluate the checkpoint that the first one sees.
    With TEST.AUG.ENABLED segmentation is evaluated with test-time augmentation as well. What the
    model gets wrong is shown in the folder `report`, where one is named.
    """
    model = build_model(cfg)  # without a teacher
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR, require_all=True)
    with taking_firsts_checkpoint(checkpointer) if resume else contextlib.nullcontext():
        if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
            raise InputError(_NO_WEIGHTS)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = test_and_report(cfg, model, report) if report else Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_tta(cfg, model))
    return results
