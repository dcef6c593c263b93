"""An exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from detectron2.engine import HookBase
from torch import nn


class AverageWeights(HookBase):
    """Averages a model's weights over the iterations: w = decay w + (1 - decay) new.

    BatchNorm's running statistics are averaged in the same way, and not copied: the averaged
    weights lag behind the trained ones, and so must the statistics of what they give. The last
    weights' statistics would be another network's. Integers are copied.

    A checkpoint's weights are the average, so whatever reads it gets what was evaluated; the
    trained weights are in this hook's state, from which a resumed run goes on.
    """

    def __init__(self, model: nn.Module, decay: float):
        """
        Args:
            model: the one that is trained, not what DistributedDataParallel makes of it.
            decay: in (0, 1); at iteration i the lesser of it and (1 + i) / (10 + i) is used, so
                that the initial weights do not stay.
        """
        self._trained = model
        self._decay = decay
        self._is_loaded = False
        # Stays in training mode, as PreciseBN expects it; it is evaluated, but never trained.
        self.averaged = copy.deepcopy(model).requires_grad_(False)

    def before_train(self) -> None:
        if not self._is_loaded:
            self.averaged.load_state_dict(self._trained.state_dict())

    @torch.no_grad()
    def after_step(self) -> None:
        iteration = self.trainer.iter
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        trained = self._trained.state_dict()
        for key, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(trained[key], 1 - decay)
            else:
                value.copy_(trained[key])

    def state_dict(self) -> dict:
        return {"trained": self._trained.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        # What the checkpointer has just put into the model is the average.
        self.averaged.load_state_dict(self._trained.state_dict())
        self._trained.load_state_dict(state["trained"])
        self._is_loaded = True
