"""The network in the operations that the paper and the official implementation list."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.backbone.injection import GateInjection, SemanticsInjection


def as_listed(model: nn.Module) -> nn.Module:
    """A copy of `model` whose hard sigmoids are relu6(v + 3) / 6; its numbers are the model's.

    This is what a network written from the paper exports as, for timings. The difference is one of
    time alone. ONNX Runtime joins a HardSigmoid to the convolution before it; an addition, a Clip
    and a division it cannot join, and with them the maps leave the blocked layout of its
    convolutions, for which alone it has a fast Resize. On one core of an AMD EPYC (Zen 5), 512x512
    and 150 classes, it takes 1.20 (Tiny) and 1.15 (Base) times as long in ONNX Runtime, and the
    same in OpenVINO. At 512x683, where a Resize is no whole multiple, it takes what this package's
    modules take; there MatrixResizing makes the difference (0.85 Tiny, 0.89 Base).

    What else was tried there on the straight export of this package's modules changed less than 2%
    either way or took longer: query, key and value as one convolution (0.99 Tiny, 1.00 Base),
    gate and info of an injection as one convolution and one Resize (1.29, 1.22), resizing by two
    matrix products (1.03, 1.04) or, in the injections, by a transposed convolution (1.41, 1.31),
    the head's fusing convolution before the sum (0.98, 1.02), the info convolution after its Resize
    (1.00, 1.03). Convolutions are 80% and 85% of the time; large 1x1 ones run at 200 to 240
    GFLOP/s, the core's limit.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, SemanticsInjection | GateInjection):
            gate = module.gate
            if gate.activation is F.hardsigmoid:
                gate.activation = _hard_sigmoid
    return model


def _hard_sigmoid(v: Tensor) -> Tensor:
    return F.relu6(v + 3) / 6
