"""ExecuTorch programs in 8-bit integers: PyTorch's quantisation of graphs, calibrated on images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.images import read_image
from ..inference.backends import FileBackend, resize_for
from ..inference.export_info import ExportInfo
from ..inference.formats import import_extra
from ..inference.formats.description_file import write_description
from ..inference.formats.executorch import export_program, lower_program
from ..inference.formats.quiet import quietly
from ..inference.formats.tracing import example_input


def write_executorch_int8(
    network: nn.Module, info: ExportInfo, path: Path, inputs: Iterable[np.ndarray]
) -> None:
    """Write `network` to `path` (.pte) in 8-bit integers, and its description (.json).

    Convolutions, products with weights, sums and products of maps are in integers, as XNNPACK's own
    quantiser has them. Weights have a scale for each channel, activations for each tensor, from the
    values on the inputs. The input and the outputs stay float32.

    Args:
        network: an ExportNetwork; it is changed.
        info: its description, whose precision is int8.
        path: of the file.
        inputs: to calibrate on, (1, 3, H, W) float32 each.
    """
    steps = import_extra("torchao.quantization.pt2e.quantize_pt2e", "executorch")
    name = "executorch.backends.xnnpack.quantizer.xnnpack_quantizer"
    xnnpack = import_extra(name, "executorch")
    with quietly("ExecuTorch"), torch.no_grad():
        graph = export_program(network, info).module()
        separate_calls(graph)
        config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
        observed = steps.prepare_pt2e(graph, xnnpack.XNNPACKQuantizer().set_global(config))
        for x in inputs:
            observed(torch.from_numpy(x))
        quantized = steps.convert_pt2e(observed)
        program = torch.export.export(quantized, (example_input(info),), strict=False)
        path.write_bytes(lower_program(program))
    write_description(info, path)


def separate_calls(graph: torch.fx.GraphModule) -> None:
    """Give each call of a convolution its own copy of the weights and the bias, in place.

    Levels share the convolutions of a detector's head. XNNPACK's backend of ExecuTorch 1.5 does not
    load a program in which two quantised convolutions have the same weights.
    """
    for node in graph.graph.find_nodes(op="get_attr"):
        for number, call in enumerate(list(node.users)[1:], 1):
            if call.target != torch.ops.aten.conv2d.default:
                continue
            name = f"{node.target.replace('.', '_')}_call{number}"
            values = graph.get_parameter(node.target).clone()
            graph.register_parameter(name, nn.Parameter(values, requires_grad=False))
            with graph.graph.inserting_before(call):
                own = graph.graph.get_attr(name)
            own.meta = dict(node.meta)
            call.replace_input_with(node, own)
    graph.recompile()


@dataclass(frozen=True)
class Calibration:
    """What an int8 file is calibrated on, and compared with.

    Attributes:
        backend: the float32 file.
        files: images like those that the network will see.
    """

    backend: FileBackend
    files: Sequence[str]

    def inputs(self) -> Iterator[np.ndarray]:
        """(1, 3, H, W) float32 for each image, resized as the Predictor resizes it."""
        for file in self.files:
            yield self.backend.normalize([resize_for(self.backend, read_image(file))])
