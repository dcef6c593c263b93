"""The interface of an export format, and what the formats share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from torch import nn

from ...errors import InputError, import_optional
from ...files import check_regular_file
from ...logs import get_logger
from ..export_info import ExportInfo
from .quiet import quietly

logger = get_logger(__name__)

# What pip installs on its own: it asks for versions of others that are older than what this package
# and its extras have, and works beside those (docs/formats.md).
_WITHOUT_OTHERS = {"litert_torch": "litert-torch==0.10.0 litert-converter==0.5.0"}
# ExportFormat.not_written, of files that are quantised as they are.
BY_QUANTIZE = {"int8": "`topformer quantize` writes it, of a float32 file"}


class Session(Protocol):
    """An exported file, open in the runtime of its format.

    Attributes:
        export: what the file says of itself.
        channels_last: it takes images fastest where their channels lie side by side.
    """

    export: ExportInfo
    channels_last: bool

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """
        Args:
            path: of the file.
            num_threads: of an operator; None = one for each core.

        Raises:
            InputError: the file cannot be read, is damaged, takes weights from other files, does
                not describe its own graph, or the runtime is not installed.
        """

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs by name for its input; ExportInfo says what they are.

        Raises:
            InputError: the graph does not take this input, or answers what it does not describe.
        """


@dataclass(frozen=True)
class ExportFormat:
    """One format of exported files; a module of this package defines it.

    Attributes:
        name: as export_model's `file_format` takes it.
        extension: of its files.
        beside: extensions of the files that are written beside one; .json is a description
            (description_file.py).
        write: from a network (export.ExportNetwork), its description and a path to the file.
        runtime: what runs its files, as Predictor's `backend` takes it.
        session: a Session of that runtime.
        reads: extensions of all files that the session opens.
        libraries: that are imported to write and run a file.
        exporter: what writes the graph, for the versions in the file.
        matrix_resizing: its runtime resizes faster by matrix products (export.resizing).
        extra: of the package, which installs the libraries.
        precisions: of the weights in a file; ExportInfo.precision. `write` writes them, but for
            int8 that is calibrated on images, which export_model writes.
        rounds_to_int8: `write` writes int8, too: of the weights alone, which need no calibration.
        not_written: of other precisions, why export_model does not write them, or what does.
        fixed_size: the size of a network's input must be given.
        gives_boxes: decoding and NMS can be in the graph; else detectors give raw outputs.
        gives_labels: label maps can be made in the graph.
        takes_images: the preprocessing can be in the graph.
        is_folder: its "files" are folders; one that is there is not written over.
        not_run: why nothing on this machine runs its files, and what is checked instead; empty
            where they are run.
        check_structure: compares a file that is not run with the network and the description that
            it was made of; an InputError says what differs.
    """

    name: str
    extension: str
    write: Callable[[nn.Module, ExportInfo, Path], None]
    runtime: str
    session: type[Session]
    reads: tuple[str, ...]
    libraries: tuple[str, ...]
    exporter: str
    beside: tuple[str, ...] = ()
    matrix_resizing: bool = False
    extra: str = "export"
    precisions: tuple[str, ...] = ("float32",)
    rounds_to_int8: bool = False
    not_written: Mapping[str, str] = field(default_factory=dict)
    fixed_size: bool = False
    gives_boxes: bool = True
    gives_labels: bool = True
    takes_images: bool = True
    is_folder: bool = False
    not_run: str = ""
    check_structure: Callable[[nn.Module, ExportInfo, Path], None] | None = None


def import_extra(module: str, extra: str = "export") -> ModuleType:
    """A library that only exported files need; an InputError says what installs it.

    What it prints when it is imported goes to the log.

    Args:
        module: to import.
        extra: of the package, which installs it.
    """
    install = "onnx onnxruntime openvino" if extra == "export" else f"'topformer_d2[{extra}]'"
    if module in _WITHOUT_OTHERS:
        install += f" and then: pip install --no-deps {_WITHOUT_OTHERS[module]}"
    with nullcontext() if module in sys.modules else quietly(module):
        return import_optional(module, "export", install)


def check_has_checksum(export: ExportInfo, has_checksum: bool, path: str) -> None:
    """Format 1 has none."""
    if export.format > 1 and not has_checksum:
        raise InputError(f"{path} has lost its checksum: copy it again, or export it again")
    if not has_checksum:
        logger.debug("%s has no checksum: damage to it is not found", path)


def check_file(path: str | Path) -> None:
    if not Path(path).exists():
        raise InputError(f"model file {path} does not exist")
    check_regular_file(path)


def check_float_input(export: ExportInfo, x: np.ndarray, path: str) -> None:
    """InputError where `x` is not what a graph without preprocessing takes.

    For a runtime that does not check it itself.
    """
    expected = (export.batch or "any", 3, *(export.size or ("any", "any")))
    fits = x.ndim == 4 and all(m in ("any", n) for n, m in zip(x.shape, expected, strict=True))
    if x.dtype != np.float32 or not fits or 0 in x.shape:
        raise cannot_run(path, x, ValueError(f"float32 of shape {expected} is expected"))


def cannot_run(path: str, x: np.ndarray, e: Exception) -> InputError:
    return InputError(f"{path} cannot be run on {x.dtype} of shape {tuple(x.shape)}: {e}")
