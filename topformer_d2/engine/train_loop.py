"""Detectron2's training step with the batch in parts, and losses read some iterations later."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..inference.allocator import keep_freed_memory
from .failures import is_finite

# Iterations whose losses are read from a GPU at once. The writers write as often.
READ_PERIOD = 20


class AccumulatingTrainer(SimpleTrainer):
    """Detectron2's SimpleTrainer and AMPTrainer, also for a batch that does not fit into memory.

    Each batch runs in equal parts, whose gradients are added before the one update. A loss that is
    a mean over images of equal size gives the whole batch's gradient, but for BatchNorm, which sees
    a part at a time. Gradients are clipped, and checked for overflow, once they are complete.

    Detectron2 reads the losses in each iteration, for which the CPU waits until the GPU has
    computed them. Here they are read from a GPU every READ_PERIOD iterations, under the iteration
    that they are of, and before each checkpoint and evaluation. A loss that is not finite is an
    error then.

    Training a segmentation model does not wait for the GPU in between, except in mixed precision
    with clipped gradients or SGD, and in the losses that choose pixels or classes: HARD_SHARE,
    HARD_THRESHOLD, DICE_WEIGHT and LOVASZ_WEIGHT of MODEL.SEM_SEG_LOSS. Detectors and models of
    both tasks wait in each iteration, where Detectron2 copies their images and reads values for
    their losses.
    """

    iter: int  # of the current iteration, SimpleTrainer's

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        *,
        num_parts: int,
        grad_scaler: torch.amp.GradScaler | None = None,
        max_iter: int | None = None,
        read_before: Collection[int] = (),
        **kwargs: Any,
    ):
        """
        Args:
            model, data_loader, optimizer, kwargs: as for SimpleTrainer; a process's batches are of
                a multiple of `num_parts` images.
            num_parts: parts of a batch.
            grad_scaler: PyTorch's GradScaler; with it the model runs in mixed precision.
            max_iter: iterations of the training, of which the last one's losses are read at once.
            read_before: further periods, as of checkpoints and evaluations; the losses are read in
                an iteration that completes one. 0 = none.
        """
        super().__init__(model, data_loader, optimizer, **kwargs)
        self.num_parts = num_parts
        self.grad_scaler = grad_scaler
        self.max_iter = max_iter
        is_on_cpu = next(model.parameters()).device.type == "cpu"
        if is_on_cpu:
            keep_freed_memory(training=True)
        self.read_period = 1 if is_on_cpu else READ_PERIOD
        self._read_before = read_before
        # (iteration, losses, seconds for the data) of what was not read yet.
        self._unread: list[tuple[int, dict[str, torch.Tensor], float]] = []

    def run_step(self) -> None:
        """One update from one batch; the losses that are logged are the parts' means."""
        assert self.model.training, "the model is not in training mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        size = len(batch) // self.num_parts
        shares = [
            self._run_part(batch[start : start + size], is_last=start + size == len(batch))
            for start in range(0, len(batch), size)
        ]
        self._keep_losses({k: sum(share[k] for share in shares) for k in shares[0]}, data_time)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)  # takes the scale off before it clips
            self.grad_scaler.update()

    def _run_part(self, part: list[dict], *, is_last: bool) -> dict[str, torch.Tensor]:
        """Add a part's gradients; returns its losses' shares in the batch's mean."""
        wait = isinstance(self.model, DistributedDataParallel) and not is_last
        device = next(self.model.parameters()).device.type
        # Processes exchange gradients once, with the last part.
        with self.model.no_sync() if wait else contextlib.nullcontext():
            with torch.autocast(device, enabled=self.grad_scaler is not None):
                losses = {k: loss / self.num_parts for k, loss in self.model(part).items()}
            total = sum(losses.values())
            (self.grad_scaler.scale(total) if self.grad_scaler else total).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _keep_losses(self, losses: dict[str, torch.Tensor], data_time: float) -> None:
        """Log an iteration's losses, or keep them until they are read with others'."""
        iteration = get_event_storage().iter
        self._unread.append((iteration, losses, data_time))
        periods = (self.read_period, *self._read_before)
        completes_one = any(p > 0 and (iteration + 1) % p == 0 for p in periods)
        if completes_one or iteration + 1 == self.max_iter:
            self.read_losses()

    def read_losses(self) -> None:
        """Log the losses that were not read yet; all processes of a run must call it together.

        Raises:
            FloatingPointError: one of them is not finite.
        """
        storage = get_event_storage()
        before = storage.iter, self.iter
        unread, self._unread = self._unread, []
        try:
            for of_iteration, values, seconds in _on_cpu(unread):
                # Detectron2 v0.6 logs under the storage's iteration, its main branch under its own.
                storage.iter = self.iter = of_iteration
                self._write_metrics(values, seconds)
        finally:
            storage.iter, self.iter = before

    def state_dict(self) -> dict:
        """For a checkpoint.

        Raises:
            FloatingPointError: a loss that was not read yet is not finite, or the model is not.
        """
        losses = [loss for _, losses, _ in _on_cpu(self._unread) for loss in losses.values()]
        if not all(loss.isfinite() for loss in losses) or not is_finite(self.model):
            raise FloatingPointError(
                "a loss, a weight or a statistic of BatchNorm is infinite or NaN by "
                f"iteration={self.iter}"
            )
        state = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def _on_cpu(
    unread: list[tuple[int, dict[str, torch.Tensor], float]],
) -> list[tuple[int, dict[str, torch.Tensor], float]]:
    """The same with all losses on the CPU, for which it waits once."""
    if not unread:
        return []
    values = torch.stack([loss.float() for _, losses, _ in unread for loss in losses.values()])
    on_cpu = iter(values.cpu())
    return [
        (iteration, {name: next(on_cpu) for name in losses}, seconds)
        for iteration, losses, seconds in unread
    ]
