"""The network in the paper's own operations, as a reference for timing."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..modeling.backbone.injection import GateInjection, SemanticsInjection


def as_listed(model: nn.Module) -> nn.Module:
    """A copy of `model` whose hard sigmoids are relu6(v + 3) / 6; its numbers are the model's.

    A network written from the paper exports like this. It is for timings (docs/latency.md).
    The difference is one of time alone. ONNX Runtime joins a HardSigmoid to the convolution before
    it; an addition, a Clip and a division it cannot join, and with them the maps leave the blocked
    layout of its convolutions, for which alone it has a fast Resize.

    Raises:
        InputError: it has no hard sigmoid, so that the copy would be the same network.
    """
    model = copy.deepcopy(model)
    gates = [
        module.gate
        for module in model.modules()
        if isinstance(module, SemanticsInjection | GateInjection)
        and module.gate.activation is F.hardsigmoid
    ]
    if not gates:
        raise InputError(
            "`reference` is for TopFormer, whose injections have a hard sigmoid; this model has "
            "none (MODEL.BACKBONE.NAME, MODEL.TOPFORMER.INJECTION): leave it out"
        )
    for gate in gates:
        gate.activation = _hard_sigmoid
    return model


def _hard_sigmoid(v: Tensor) -> Tensor:
    return F.relu6(v + 3) / 6
