"""Find the largest batch whose training step fits into the GPU's memory.

  topformer analyze batch --config-file my.yaml
  topformer analyze batch --config-file my.yaml SOLVER.AMP.ENABLED True

Training steps of the config are tried with more and more images, the largest of some training
samples as often as needed. A step may take 85% of the GPU's memory. The suggestion is for one GPU;
N of them take N times as many images. With SOLVER.REFERENCE_BATCH, the batch that the config was
made for, rate and iterations follow the new one. Nothing is written.
"""

from __future__ import annotations

import argparse

import torch

from ..analysis.batch_size import SHARE, build_probe, find_batch, format_trials, gpu_peak
from ..config import load_config
from ..data import check_config
from ..engine.processes import check_single_run
from ..errors import InputError
from .parsing import Parser, config_parser


def make_parser() -> Parser:
    """The arguments of `topformer analyze batch`."""
    return config_parser(__doc__)


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Try batches, print the table and the largest one that fits."""
    check_single_run()
    cfg = load_config(args.config_file, args.opts)
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type != "cuda":
        raise InputError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE}; a batch is looked for by the memory of a GPU"
        )
    check_config(cfg, train=True)
    with torch.cuda.device(device):
        limit = SHARE * torch.cuda.mem_get_info()[1]
        images, trials = find_batch(build_probe(cfg, gpu_peak), limit)
    parts = cfg.SOLVER.ACCUMULATION_STEPS
    in_parts = f", {parts} parts of {images}" if parts > 1 else ""
    print(f"{format_trials(trials, limit)}\n")
    print(f"Suggested: SOLVER.IMS_PER_BATCH {images * parts}{in_parts}")
