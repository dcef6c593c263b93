"""Gradient accumulation: Detectron2's training step with the batch in parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class AccumulatingTrainer(SimpleTrainer):
    """Detectron2's SimpleTrainer and AMPTrainer for a batch that does not fit into memory.

    Each batch runs in equal parts, whose gradients are added before the one update. A loss that is
    a mean over images of equal size gives the whole batch's gradient, but for BatchNorm, which sees
    a part at a time. Gradients are clipped, and checked for overflow, once they are complete.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        *,
        num_parts: int,
        grad_scaler: torch.amp.GradScaler | None = None,
        **kwargs: Any,
    ):
        """
        Args:
            model, data_loader, optimizer, kwargs: as for SimpleTrainer; a process's batches are of
                a multiple of `num_parts` images.
            num_parts: parts of a batch.
            grad_scaler: PyTorch's GradScaler; with it the model runs in mixed precision.
        """
        super().__init__(model, data_loader, optimizer, **kwargs)
        self.num_parts = num_parts
        self.grad_scaler = grad_scaler

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
        self._write_metrics({k: sum(share[k] for share in shares) for k in shares[0]}, data_time)
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

    def state_dict(self) -> dict:
        state = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
