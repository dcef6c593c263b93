"""Times and memory, beside those of the straight implementation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import Tensor
from torch.nn import functional as F

from topformer_d2 import label_map
from topformer_d2.analysis.gpu import time_on_gpu
from topformer_d2.analysis.latency import time_alternately
from topformer_d2.engine import Trainer
from topformer_d2.modeling.losses import SegmentationLoss
from topformer_d2.modeling.resized_cross_entropy import resized_cross_entropy

from .report import NotHere, Report, require
from .results import make_batch
from .setting import MODELS, Setting

# At most so many times the straight implementation's time, and such a share of its memory.
MOST_TIME, MOST_MEMORY = 1.0, 1 / 8


class PlainLoss(SegmentationLoss):
    """The straight implementation: the logits are resized, then comes PyTorch's cross entropy."""

    def pixel_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        resized = F.interpolate(logits.float(), targets.shape[1:], mode="bilinear")
        losses = F.cross_entropy(
            resized, targets.long(), ignore_index=self.ignore_value, reduction="sum"
        )
        return losses / targets.numel()


def add_speed(report: Report, setting: Setting) -> None:
    """A line for each comparison, and the tables."""
    report.check("the loss beside the straight one", partial(_loss, setting))
    report.check("the label map beside the straight one", partial(_label_map, setting))
    for kind in MODELS:
        report.check(f"training step by part, {kind}", partial(_steps, report, setting, kind))
        report.check(f"batch inference, {kind}", partial(_inference, report, setting, kind))


def _finished(call: Callable[[], object], device: str) -> None:
    call()
    if device == "cuda":
        torch.cuda.synchronize()


def _peak(call: Callable[[], object]) -> float:
    """MiB that a call adds on the GPU at its peak."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _compare(
    setting: Setting, ours: Callable, straight: Callable, most_time: float, most_memory: float
) -> str:
    calls = [partial(_finished, call, setting.device) for call in (ours, straight)]
    times = time_alternately(calls, 2 if setting.is_short else 20)
    own, other = np.median(times, axis=0)
    text = f"{own:.2f} ms beside {other:.2f} ms"
    if setting.device == "cpu":
        raise NotHere(f"the aims are a GPU's; on this CPU {text}")
    memory = [_peak(call) for call in (ours, straight)]
    text += f"; {memory[0]:.0f} MiB beside {memory[1]:.0f} MiB"
    is_right = own <= most_time * other and memory[0] <= most_memory * memory[1]
    return require(is_right, f"{text} (aims: {most_time:g} of the time, {most_memory:g} of that)")


def _loss(setting: Setting) -> str:
    logits, labels, weights = (each.to(setting.device) for each in make_batch(setting))
    logits.requires_grad_()

    def ours() -> None:
        logits.grad = None
        resized_cross_entropy(logits, labels, weights).backward()

    def straight() -> None:
        logits.grad = None
        resized = F.interpolate(logits, labels.shape[1:], mode="bilinear")
        F.cross_entropy(resized, labels).backward()

    return _compare(setting, ours, straight, MOST_TIME, MOST_MEMORY)


def _label_map(setting: Setting) -> str:
    logits, labels, _ = (each[0].to(setting.device) for each in make_batch(setting))
    size = tuple(labels.shape)

    def straight() -> Tensor:
        return F.interpolate(logits[None], size, mode="bilinear")[0].argmax(0)

    # It answers NaN with an error, which the straight way does not look for.
    return _compare(setting, partial(label_map, logits, size), straight, 1.5, 1.1)


def _steps(report: Report, setting: Setting, kind: str) -> str:
    """Milliseconds of each part of a training step, with the GPU waited for after each."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for loss in ("ours", "straight")[: 2 if kind == "segmentation" else 1]:
            row = _parts(setting, kind, dtype, loss == "straight")
            rows.append([str(dtype).removeprefix("torch."), loss, *row])
    parts = ["data", "forward and loss", "backward", "optimizer"]
    headers = ["precision", "loss", *(f"{part}, ms" for part in parts)]
    title = f"Training {kind}: {setting.batch} images of {setting.crop}x{setting.crop}"
    report.add_table(title, rows, [*headers, "images a second", "peak memory, MiB"])
    return f"{rows[0][-2]} images a second in float32, {rows[-1][-2]} in the last row"


def _parts(setting: Setting, kind: str, dtype: torch.dtype, is_straight: bool) -> list[str]:
    on_gpu = setting.device == "cuda"
    trainer = Trainer(setting.config(kind, f"{kind}_times"))
    model = trainer.model
    if is_straight:
        own = model.sem_seg_head.loss
        model.sem_seg_head.use_loss(PlainLoss(ignore_value=own.ignore_value))
    steps = 2 if setting.is_short else 25
    times, batches = np.zeros((steps, 4)), iter(trainer.data_loader)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for row in times:
        with _clock(row, 0, on_gpu):
            batch = next(batches)
        mixed = torch.autocast(setting.device, dtype, enabled=dtype is not torch.float32)
        with _clock(row, 1, on_gpu), EventStorage(), mixed:
            loss = sum(model(batch).values())
        with _clock(row, 2, on_gpu):
            trainer.optimizer.zero_grad()
            loss.backward()
        with _clock(row, 3, on_gpu):
            trainer.optimizer.step()
    medians = np.median(times[steps // 5 :], axis=0)  # the first ones are a warm-up
    memory = f"{torch.cuda.max_memory_allocated() / 2**20:.0f}" if on_gpu else "not here"
    rate = 1e3 * setting.batch / medians.sum()
    return [*(f"{ms:.2f}" for ms in medians), f"{rate:.0f}", memory]


@contextmanager
def _clock(row: np.ndarray, column: int, on_gpu: bool) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if on_gpu:
        torch.cuda.synchronize()
    row[column] = 1e3 * (time.perf_counter() - start)


def _inference(report: Report, setting: Setting, kind: str) -> str:
    """Images a second by batch, data type and memory layout, with and without CUDA graphs."""
    model = build_model(setting.config(kind, f"{kind}_inference")).eval()
    size = (setting.crop, setting.crop)
    batches = (1,) if setting.is_short else (1, 8, 32)
    repetitions = 1 if setting.is_short else 30
    times = {n: time_on_gpu(model, size, n, repetitions, setting.device) for n in batches}
    forms = list(times[batches[0]])
    rates = {(form, n): 1e3 * n / times[n][form] for form, n in itertools.product(forms, batches)}
    rows = [[form, *(f"{rates[form, n]:.0f}" for n in batches)] for form in forms]
    title = f"Inference, {kind}, {size[0]}x{size[1]}: images a second"
    report.add_table(title, rows, ["form", *(f"batch {n}" for n in batches)])
    networks = {key: rate for key, rate in rates.items() if key[0] != "label maps"}
    (form, n), rate = max(networks.items(), key=lambda each: each[1])
    return f"{rate:.0f} images a second at most ({form}, batch {n})"
