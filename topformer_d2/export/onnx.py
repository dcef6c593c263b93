"""Writing an ONNX file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from ..files import folder_beside
from ..inference.checksum import CHECKSUM_KEY, PLACEHOLDER, seal
from ..inference.explanation import as_text, explain
from ..inference.export_info import BOXES, LABELS, METADATA_KEY, ExportInfo
from ..inference.extras import import_extra
from .pooling import ExactPooling

OPSET = 17
# What free sizes are traced at. Here no map of a network is resized to its own size, and no image
# is padded by nothing, for that would be missing from the graph at all other sizes: one more than
# multiples of 32, whose maps at strides 2 to 16 all have odd sides, so that doubling the map before
# never gives them.
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


def write_onnx(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path`, with `info` inside.

    What is constant is folded before, by ONNX Runtime's basic level, which keeps to ONNX's own
    operators: a reader sees the network and not the arithmetic of its sizes.
    """
    onnx, onnxruntime = import_extra("onnx"), import_extra("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with folder_beside(path) as folder:
        folded = folder / "folded.onnx"
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(
            trace(network, info), options, providers=["CPUExecutionProvider"]
        )
        model = onnx.load(folded)
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    save_described(model, info.to_json(), path)


def save_described(model, description: str, path: Path) -> None:
    """Write an ONNX model to `path` with an ExportInfo's JSON inside, its sentences and a checksum.

    Args:
        model: an onnx.ModelProto; it is changed.
        description: of the model.
        path: of the file.
    """
    from .. import __version__

    onnx = import_extra("onnx")
    properties = {METADATA_KEY: description, CHECKSUM_KEY: PLACEHOLDER}
    onnx.helper.set_model_props(model, properties)
    explanation = explain(ExportInfo.from_json(description, str(path)))
    model.producer_name, model.producer_version = METADATA_KEY, __version__
    model.domain = METADATA_KEY
    model.doc_string = model.graph.doc_string = as_text(explanation)
    for tensor in model.graph.input:
        tensor.doc_string = explanation["input"]
    for tensor in model.graph.output:
        tensor.doc_string = explanation["outputs"][tensor.name]
    onnx.checker.check_model(model)
    onnx.save(model, path)
    seal(path)
