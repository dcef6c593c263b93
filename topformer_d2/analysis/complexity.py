"""Parameters and multiply-accumulates of a model, by module."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from fvcore.nn import FlopCountAnalysis, parameter_count
from tabulate import tabulate
from torch import Tensor, nn

from ..modeling import TopFormerMultiTask


@dataclass(frozen=True)
class Cost:
    """Of a module and all below it.

    Attributes:
        parameters: trainable or not; buffers, such as BatchNorm's statistics, are none.
        macs: multiply-accumulates, as fvcore counts them.
    """

    parameters: int
    macs: int


class _Network(nn.Module):
    """A detector's or segmenter's tensors from input to raw predictions, without boxes' NMS."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor):
        if isinstance(self.model, TopFormerMultiTask):
            logits, _, predictions = self.model.network(x)
            return logits, predictions
        features = self.model.backbone(x)
        if hasattr(self.model, "sem_seg_head"):
            return self.model.sem_seg_head.layers(features)
        return self.model.head([features[name] for name in self.model.head_in_features])


def _attention_macs(inputs, outputs) -> int:
    """Of PyTorch's fused attention, which fvcore does not know: both matrix products."""
    query, key, value = (x.type().sizes() for x in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def complexity(model: nn.Module, height: int, width: int) -> dict[str, Cost]:
    """Cost of a meta-architecture's network by module name; "" is the whole.

    By fvcore's counter, which is what the paper calls FLOPs: activations, additions and all that
    follows the network (decoding, NMS) are free.

    Args:
        model: a TopFormerSegmentor, a TopFormerMultiTask, or any of Detectron2's dense detectors.
        height, width: of the network's input.
    """
    training = [module for module in model.modules() if module.training]
    network = _Network(model).eval()
    image = torch.zeros(1, 3, height, width, device=model.device)
    analysis = FlopCountAnalysis(network, image)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    macs = analysis.by_module()
    for module in training:
        module.training = True
    parameters = parameter_count(model)
    return {
        name: Cost(parameters[name], int(macs[f"model.{name}" if name else ""]))
        for name, _ in model.named_modules()
    }


def format_costs(costs: dict[str, Cost], depth: int = 2) -> str:
    """A table of the modules down to `depth`, those without parameters left out."""
    rows = [
        [name or "all", f"{cost.parameters:,}", f"{cost.macs / 1e9:.3f}"]
        for name, cost in costs.items()
        if cost.parameters and (not name or name.count(".") < depth)
    ]
    return tabulate(
        rows, headers=["module", "parameters", "GMACs"], colalign=("left", "right", "right")
    )
