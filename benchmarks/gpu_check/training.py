"""Checks of training: beside the CPU, in mixed precision, resumed, and in two processes."""

from __future__ import annotations

import itertools
import math
import os
from functools import partial

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from topformer_d2.engine import Trainer
from topformer_d2.engine.launch import launch

from .report import NotHere, Report, require
from .setting import MODELS, Setting

# Largest share by which losses may differ: of the same weights; after some updates, which magnify
# what is rounded; and of two kinds of precision at the end of a training.
SAME_WEIGHTS, SOME_UPDATES, OTHER_PRECISION = 1e-3, 3e-2, 0.25


class _KeepLosses(HookBase):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train(self) -> None:  # a GPU's losses are read some iterations at a time
        history = self.trainer.storage.history("total_loss")
        self.losses = [loss for loss, _ in history.values()]


def train(cfg: CfgNode, *, resume: bool = False) -> list[float]:
    """The total loss of each iteration."""
    trainer, hook = Trainer(cfg), _KeepLosses()
    trainer.resume_or_load(resume=resume)
    trainer.register_hooks([hook] if comm.is_main_process() else [])
    trainer.train()
    return hook.losses


def _train_and_save(cfg: CfgNode, path: str) -> None:
    losses = train(cfg)
    if comm.is_main_process():
        torch.save(losses, path)


def train_mixed(cfg: CfgNode, dtype: torch.dtype, iterations: int) -> list[float]:
    """The losses with autocast to `dtype`; SOLVER.AMP does it for float16 on a GPU alone."""
    trainer, found = Trainer(cfg), []
    scaler = torch.amp.GradScaler(cfg.MODEL.DEVICE, enabled=dtype is torch.float16)
    for iteration, batch in enumerate(itertools.islice(trainer.data_loader, iterations)):
        with EventStorage(iteration), torch.autocast(cfg.MODEL.DEVICE, dtype):
            loss = sum(trainer.model(batch).values())
        trainer.optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(trainer.optimizer)
        scaler.update()
        trainer.scheduler.step()  # PyTorch warns of it where the first gradients overflow
        found.append(loss.item())
    return found


def add_training(report: Report, setting: Setting) -> None:
    """A line for each check of each kind of model."""
    for kind in MODELS:
        losses: dict[str, list[float]] = {}
        for name, check in {
            "float32, first steps beside the CPU's": _beside_cpu,
            "float32": _float32,
            "AMP (fp16)": _amp,
            "autocast to bf16": _bf16,
            "resume": _resume,
            "2 processes with SyncBN": _two_processes,
        }.items():
            report.check(f"training, {kind}: {name}", partial(check, setting, kind, losses))


def _difference(found: list[float], expected: list[float]) -> float:
    return float(np.max(np.abs(np.divide(found, expected) - 1)))


def _beside_cpu(setting: Setting, kind: str, losses: dict) -> str:
    few = ["SOLVER.MAX_ITER", 3, "SOLVER.WARMUP_ITERS", 0]
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        cpu, here = (
            train(setting.config(kind, f"{kind}_first_{i}", *few, device=device))
            for i, device in enumerate(("cpu", setting.device))
        )
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    first, all_three = _difference(here[:1], cpu[:1]), _difference(here, cpu)
    return require(
        first <= SAME_WEIGHTS and all_three <= SOME_UPDATES,
        f"differ by {first:.1e} of the first loss, {all_three:.1e} of any of 3",
    )


def _float32(setting: Setting, kind: str, losses: dict) -> str:
    half = setting.iterations // 2
    cfg = setting.config(kind, kind, "SOLVER.CHECKPOINT_PERIOD", half)
    losses["float32"] = found = train(cfg)
    return _learns(found, setting)


def _learns(losses: list[float], setting: Setting) -> str:
    share = max(1, len(losses) // 6)
    first, last = np.mean(losses[:share]), np.mean(losses[-share:])
    is_right = math.isfinite(last) and (setting.is_short or last < first)
    return require(is_right, f"loss {first:.3f} to {last:.3f} in {len(losses)} iterations")


def _as_float32(found: list[float], setting: Setting, losses: dict) -> str:
    text, expected = _learns(found, setting), losses["float32"][: len(found)]
    share = max(1, len(found) // 6)
    off = _difference([np.mean(found[-share:])], [np.mean(expected[-share:])])
    # A few iterations from random weights say nothing of it.
    is_right = setting.is_short or off <= OTHER_PRECISION
    return require(is_right, f"{text}; {off:.1%} from float32 at the end")


def _amp(setting: Setting, kind: str, losses: dict) -> str:
    name = f"{kind}_fp16"
    if setting.device == "cpu":
        found = train_mixed(setting.config(kind, name), torch.float16, setting.iterations)
        return f"{_as_float32(found, setting, losses)}; SOLVER.AMP itself is not here"
    cfg = setting.config(kind, name, "SOLVER.AMP.ENABLED", True)
    return _as_float32(train(cfg), setting, losses)


def _bf16(setting: Setting, kind: str, losses: dict) -> str:
    found = train_mixed(setting.config(kind, f"{kind}_bf16"), torch.bfloat16, setting.iterations)
    return _as_float32(found, setting, losses)


def _resume(setting: Setting, kind: str, losses: dict) -> str:
    """From the checkpoint in the middle of the training in float32."""
    half = setting.iterations // 2
    cfg = setting.config(kind, kind)
    with open(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"), "w", encoding="utf-8") as file:
        file.write(f"model_{half - 1:07d}.pth")
    rest, expected = train(cfg, resume=True), losses["float32"][half:]
    first, later = _difference(rest[:1], expected[:1]), _difference(rest, expected)
    exact = setting.device == "cpu"  # a GPU's kernels do not give the same bits each time
    is_right = (first, later) == (0, 0) if exact else first <= SAME_WEIGHTS
    return require(
        is_right, f"first loss differs by {first:.1e}, any of {len(rest)} by {later:.1e}"
    )


def _two_processes(setting: Setting, kind: str, losses: dict) -> str:
    if torch.cuda.device_count() < 2:
        raise NotHere(f"{torch.cuda.device_count()} GPUs, and it takes 2")
    few = ["SOLVER.MAX_ITER", 3]
    path = os.path.join(setting.folder, "two.pth")
    launch(_train_and_save, 2, device="cuda", args=(setting.config(kind, f"{kind}_2", *few), path))
    one, two = train(setting.config(kind, f"{kind}_1", *few)), torch.load(path)
    off = _difference(two, one)
    return require(off <= SOME_UPDATES, f"losses differ by {off:.1e} from one process's")
