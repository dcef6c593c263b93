"""How the losses of several tasks are weighted."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn


class UncertaintyWeighting(nn.Module):
    """Losses weighted by learned uncertainties (Kendall et al., CVPR 2018, Section 3).

    With s = log sigma^2 of each loss L, a classification gives exp(-s) L + s / 2 and a regression
    exp(-s) L / 2 + s / 2. All s start at 0.
    """

    def __init__(self, names: Collection[str], regressions: Collection[str] = ()):
        """
        Args:
            names: of the losses.
            regressions: those of them that are regressions.
        """
        super().__init__()
        self.names = tuple(names)
        self.log_variance = nn.Parameter(torch.zeros(len(self.names)))
        halves = torch.tensor([0.5 if name in regressions else 1.0 for name in self.names])
        self.register_buffer("_halves", halves, persistent=False)

    def forward(self, losses: Mapping[str, Tensor], present: Collection[str]) -> dict[str, Tensor]:
        """The weighted losses, and the sum of all s / 2 as "loss_uncertainty".

        The weights go into Detectron2's event storage as "weight_sem_seg" for "loss_sem_seg".

        Args:
            losses: a scalar for each of the names; further ones stay as they are.
            present: names of the losses that have labels in this batch. The uncertainty of others
                has no gradient; it would only shrink.
        """
        factors = torch.exp(-self.log_variance) * self._halves
        for name, factor in zip(self.names, factors.tolist(), strict=True):
            get_event_storage().put_scalar(f"weight_{name.removeprefix('loss_')}", factor)
        counted = self.log_variance.new_tensor([float(name in present) for name in self.names])
        weighted = {n: f * losses[n] for n, f in zip(self.names, factors, strict=True)}
        return {**losses, **weighted, "loss_uncertainty": (counted * self.log_variance).sum() / 2}
