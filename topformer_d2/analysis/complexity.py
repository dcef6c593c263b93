"""Parameters, multiply-accumulates and activations of a model, by module."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis, parameter_count
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..modeling import adapt
from ..modeling.heads import SegmentationHead
from ..modeling.meta_arch.head_contract import pad_to_multiple


@dataclass(frozen=True)
class Cost:
    """The cost of a module, with all modules inside it.

    Attributes:
        parameters: trainable or not; buffers, such as BatchNorm's statistics, are none.
        macs: multiply-accumulates, as fvcore counts them.
        activation_bytes: of all tensors that modules put out for one image; one handed on by
            several modules counts once. What a module makes and does not put out (a convolution
            before its norm, the weights of attention) is left out. A sum over the network: no
            implementation keeps all of them at once.
    """

    parameters: int
    macs: int
    activation_bytes: int


class Network(nn.Module):
    """A copy of a model in inference, from normalised images to its `network`'s tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(adapt(model)).eval()
        if hasattr(self.model, "distillation"):
            del self.model.distillation
        for module in self.model.modules():
            if isinstance(module, SegmentationHead):
                module.drop_training_parts()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W), padded where the model needs it, to RawOutput's tensors."""
        return self.model.network(pad_to_multiple(x, self.model.size_divisor)).tensors()


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Of PyTorch's fused attention, which fvcore does not know: both matrix products."""
    query, key, value = (x.type().sizes() for x in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def count_macs(network: nn.Module, image: Tensor) -> FlopCountAnalysis:
    """Count a network's multiply-accumulates for an image by fvcore, with those of attention."""
    analysis = FlopCountAnalysis(network, image)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)


def complexity(model: nn.Module, height: int, width: int) -> dict[str, Cost]:
    """Cost of a meta-architecture's network by module name; "" is the whole.

    By fvcore's counter, which is what the paper calls FLOPs: activations, additions and all that
    follows the network (decoding, NMS) are free. What training alone uses is left out.

    Args:
        model: a TopFormerSegmentor, a TopFormerMultiTask, or any of Detectron2's dense detectors.
        height, width: of the network's input.
    """
    network = Network(model)
    image = torch.zeros(1, 3, height, width, device=model.device)
    macs = count_macs(network, image).by_module()
    parameters = parameter_count(network.model)
    names = [name for name, _ in network.model.named_modules()]
    # On the meta device the outputs, all of which are kept, take no memory.
    activations = _activation_bytes(network.to("meta").model, network, image.to("meta"))
    return {
        name: Cost(parameters[name], int(macs[f"model.{name}" if name else ""]), activations[name])
        for name in names
    }


def ancestors(name: str) -> Iterator[str]:
    """A module's name, then the names of the modules around it, and "" at the end."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


@torch.inference_mode()
def _activation_bytes(model: nn.Module, network: nn.Module, image: Tensor) -> dict[str, int]:
    """Cost.activation_bytes of the modules of `model` where `network`, around it, takes `image`."""
    sizes: dict[str, int] = defaultdict(int)
    seen = {image.untyped_storage()._cdata: image}  # held, so that no address comes twice

    def record(name: str, outputs: object) -> None:
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in seen:
                seen[tensor.untyped_storage()._cdata] = tensor
                for ancestor in ancestors(name):
                    sizes[ancestor] += tensor.numel() * tensor.element_size()

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: record(name, out))
    network(image)
    return sizes


def format_costs(costs: dict[str, Cost], depth: int = 2) -> str:
    """A table of the modules down to `depth`, those without parameters left out."""
    rows = [
        [
            name or "all",
            f"{cost.parameters:,}",
            f"{cost.macs / 1e9:.3f}",
            f"{cost.activation_bytes / 2**20:.1f}",
        ]
        for name, cost in costs.items()
        if cost.parameters and (not name or name.count(".") < depth)
    ]
    headers = ["module", "parameters", "GMACs", "activations, MiB"]
    return tabulate(
        rows, headers, colalign=("left", "right", "right", "right"), disable_numparse=True
    )
