"""The Core ML format: writing packages anywhere, and running them on macOS."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import InputError
from ..explanation import as_text, explain, metadata_json
from ..export_info import METADATA_KEY, ExportInfo
from ..graph import Tensor, check_answer, check_graph
from ..optimization import fold_norms
from .base import ExportFormat, cannot_run, import_extra
from .pooling import ExactPooling
from .quiet import quietly
from .tracing import example_input

# Of a package's tensors (ArrayFeatureType.ArrayDataType of its format), in check_graph's words.
_KINDS = {65568: "float", 131104: "int32"}


def write_coreml(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to the folder `path` (.mlpackage), with `info` inside."""
    coremltools = import_extra("coremltools", FORMAT.extra)
    with quietly("coremltools"):
        fold_norms(network)
        example = example_input(info)
        with torch.no_grad(), ExactPooling(is_static=True):
            traced = torch.jit.trace(network, example)
        precision = coremltools.precision
        model = coremltools.convert(
            traced,
            convert_to="mlprogram",
            inputs=[coremltools.TensorType(name=info.input_name, shape=example.shape)],
            outputs=[coremltools.TensorType(name=name, dtype=np.float32) for name in info.outputs],
            compute_precision=precision.FLOAT16
            if info.precision == "float16"
            else precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS15,
            skip_model_load=True,
        )
        model.short_description = as_text(explain(info))
        model.user_defined_metadata[METADATA_KEY] = metadata_json(info)
        model.save(str(path))


def check_structure(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Compare a package with the network that it was made of, where it cannot be run.

    Its inputs and outputs are to be those of the description, their shapes those of the network's
    outputs, and its convolutions as many as the network calls, with as many weights.

    Args:
        network: an export.ExportNetwork.
        info: its description.
        path: of the package.

    Raises:
        InputError: it is another network.
    """
    spec = import_extra("coremltools", FORMAT.extra).utils.load_spec(str(path))
    _check_description(spec, info, str(path))
    x = example_input(info)
    called: list[int] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(module.weight.numel()))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        expected = [tuple(output.shape) for output in network(x)]
    for hook in hooks:
        hook.remove()
    given = [tensor.shape for tensor in _tensors(spec.description.output)]
    if given != expected:
        raise InputError(f"its outputs have shapes {given} instead of {expected}")
    found = list(_convolutions(spec))
    if sorted(found) != sorted(called):
        raise InputError(
            f"it has {len(found)} convolutions with {sum(found)} weights instead of "
            f"{len(called)} with {sum(called)}"
        )


def _convolutions(spec: Any) -> Iterator[int]:
    """The number of weights of each convolution."""
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            sizes: dict[str, int] = {}
            for operation in block.operations:
                if operation.type == "conv":
                    yield sizes[operation.inputs["weight"].arguments[0].name]
                for output in operation.outputs:
                    sides = output.type.tensorType.dimensions
                    sizes[output.name] = int(np.prod([n.constant.size for n in sides], dtype=int))


def _check_description(spec: Any, info: ExportInfo, path: str) -> None:
    check_graph(info, _tensors(spec.description.input), _tensors(spec.description.output), path)


def _tensors(features: Any) -> list[Tensor]:
    found = []
    for each in features:
        array = each.type.multiArrayType
        found.append(Tensor(each.name, _KINDS.get(array.dataType, "other"), tuple(array.shape)))
    return found


class CoreMlSession:
    """An .mlpackage in Core ML, used as OnnxRuntimeSession is; on macOS alone.

    Not tested: nobody has run it on macOS yet.
    """

    channels_last = False

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them; Core ML chooses its threads."""
        self._path = str(path)
        if FORMAT.not_run:
            raise InputError(f"{path} cannot be run: {FORMAT.not_run}")
        if not Path(path).is_dir():
            raise InputError(f"model package {path} does not exist, or is no folder")
        coremltools = import_extra("coremltools", FORMAT.extra)
        try:
            # In float32: what the processor computes, and not the GPU or the Neural Engine.
            units = coremltools.ComputeUnit.CPU_ONLY
            self._model = coremltools.models.MLModel(self._path, compute_units=units)
            spec = self._model.get_spec()
            described = self._model.user_defined_metadata.get(METADATA_KEY)
        except Exception as e:  # its exceptions have no base of their own
            raise InputError(
                f"{path} is not a package that Core ML can run: {e}; copy the whole folder again, "
                "or export it again"
            ) from e
        if described is None:
            raise InputError(
                f"{path} does not describe its model: write it with `topformer export`"
            )
        self.export = ExportInfo.from_json(described, self._path)
        _check_description(spec, self.export, self._path)
        self._lock = threading.Lock()

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock:
            try:
                found = self._model.predict({self.export.input_name: x})
            except Exception as e:
                raise cannot_run(self._path, x, e) from e
        outputs = {name: np.asarray(found[name], np.float32) for name in self.export.outputs}
        check_answer(self.export, outputs, self._path)
        return outputs


FORMAT = ExportFormat(
    name="coreml",
    extension=".mlpackage",
    write=write_coreml,
    runtime="coreml",
    session=CoreMlSession,
    reads=(".mlpackage",),
    libraries=("coremltools",),
    exporter="torch.jit.trace, coremltools",
    extra="coreml",
    precisions=("float32", "float16"),
    fixed_size=True,
    gives_boxes=False,
    gives_labels=False,
    takes_images=False,
    is_folder=True,
    not_run=""
    if sys.platform == "darwin"
    else "Core ML is a part of macOS; its structure was checked instead of its numbers",
    check_structure=check_structure,
)
