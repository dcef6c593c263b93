"""A network as an ONNX graph, from which every format is made."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from ..export_info import BOXES, LABELS, ExportInfo
from .pooling import ExactPooling

OPSET = 17
EXPORTER = f"torch.onnx (TorchScript), opset {OPSET}"
# The image size at which a network with free sizes is traced. The graph keeps only what happens at
# this size. So here every resizing must change the size, and every padding must add something, as
# they do at most other sizes. Both sides are one more than a multiple of 32: all maps at strides 2
# to 16 then have odd sides, and a map that is doubled never has the right size already.
_TRACED_SIZE = (225, 289)


def trace(network: nn.Module, info: ExportInfo) -> bytes:
    """`network` as an ONNX model.

    By torch.onnx's TorchScript exporter. On PyTorch 2.15 the newer one (dynamo=True) gives the same
    operators once ONNX Runtime has folded what is constant, but takes far longer and needs
    onnxscript.
    """
    example = example_input(info)
    dynamic = _dynamic_axes(info)
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings(), ExactPooling(info.size is not None):
        warnings.simplefilter("ignore")  # what becomes a constant is one here
        torch.onnx.export(
            network,
            (example,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[info.input_name],
            output_names=list(info.outputs),
            dynamic_axes=dynamic,
        )
    return file.getvalue()


def example_input(info: ExportInfo) -> torch.Tensor:
    """Zeros that the network of `info` takes."""
    if info.with_preprocessing:
        return torch.zeros(*_TRACED_SIZE, 3, dtype=torch.uint8)
    return torch.zeros(info.batch or 2, 3, *(info.size or _TRACED_SIZE))


def _dynamic_axes(info: ExportInfo) -> dict[str, dict[int, str]]:
    """The axes whose sizes are not fixed, with names for them."""
    batch = {0: "batch"} if info.batch is None else {}
    free = info.size is None
    axes = {name: dict(batch) for name in info.outputs}
    if info.with_preprocessing:
        axes["image"] = {0: "image_height", 1: "image_width"}
    else:
        axes["images"] = batch | ({2: "height", 3: "width"} if free else {})
    for name in info.outputs:
        if name in BOXES:
            axes[name] = {0: "num_boxes"}
        elif name == LABELS and info.with_preprocessing:
            axes[name] = {1: "image_height", 2: "image_width"}
        elif name == LABELS and free:
            axes[name] |= {1: "height", 2: "width"}
        elif free:
            axes[name] |= {2: f"{name}_height", 3: f"{name}_width"}
    return axes
