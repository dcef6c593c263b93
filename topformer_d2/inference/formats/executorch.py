"""The ExecuTorch format: programs for its XNNPACK backend, and running them on the CPU."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from ...errors import InputError
from ...logs import get_logger
from ..export_info import ExportInfo
from ..graph import Tensor, check_answer, check_counts, check_graph
from ..optimization import fold_norms
from .base import ExportFormat, cannot_run, check_float_input, import_extra
from .description_file import read_description, write_description
from .pooling import ExactPooling
from .quiet import quietly
from .tracing import example_input

logger = get_logger(__name__)

_METHOD = "forward"
_BACKEND = "XnnpackBackend"
# The runtime's numbers of element types, in check_graph's words.
_KINDS = {0: "uint8", 3: "int32", 4: "int64", 6: "float"}
# All programs of a process share one pool of threads, which cannot be changed while one is open.
_open: weakref.WeakSet[ExecuTorchSession] = weakref.WeakSet()
_pool_lock = threading.Lock()


def write_executorch(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path` (.pte), and its description (.json).

    What XNNPACK has operators for is computed by it, and the rest by ExecuTorch's own.
    """
    with quietly("ExecuTorch"):
        path.write_bytes(lower_program(export_program(network, info)))
    write_description(info, path)


def export_program(network: nn.Module, info: ExportInfo) -> ExportedProgram:
    """`network`, which is changed, as PyTorch's own program, with what is constant computed."""
    constants = import_extra("executorch.exir.passes.constant_prop_pass", FORMAT.extra)
    fold_norms(network)
    with torch.no_grad(), ExactPooling(is_static=True):
        program = torch.export.export(network, (example_input(info),), strict=False)
    return constants.constant_prop_pass(program.run_decompositions({}))


def lower_program(program: ExportedProgram) -> bytes:
    """A program as a .pte has it, for XNNPACK where that has the operators."""
    exir = import_extra("executorch.exir", FORMAT.extra)
    partition = "executorch.backends.xnnpack.partition.xnnpack_partitioner"
    xnnpack = import_extra(partition, FORMAT.extra)
    partitioner = [xnnpack.XnnpackPartitioner()]
    return exir.to_edge_transform_and_lower(program, partitioner=partitioner).to_executorch().buffer


class ExecuTorchSession:
    """A .pte file in ExecuTorch, used as OnnxRuntimeSession is.

    All files that are open in a process share one pool of threads. The first one of them sets
    their number.
    """

    channels_last = False

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them, but for num_threads; see above."""
        self._path = str(path)
        runtime = import_extra("executorch.runtime", FORMAT.extra)
        pool = import_extra("executorch.extension.pybindings.portable_lib", FORMAT.extra)
        self.export, content = read_description(path)
        program = content[FORMAT.extension]
        engine = runtime.Runtime.get()
        _check_backends(program, engine.backend_registry.registered_backend_names, self._path)
        with _pool_lock:
            _set_threads(pool, num_threads or os.cpu_count() or 1)
            _open.add(self)
        self._program = program  # which the module reads its weights from
        with self._opening():
            self._module = pool._load_for_executorch_from_buffer(program)
            meta = self._module.method_meta(_METHOD)
            inputs = [meta.input_tensor_meta(i) for i in range(meta.num_inputs())]
            outputs = [meta.output_tensor_meta(i) for i in range(meta.num_outputs())]
        # The program's tensors have no names.
        names = self.export.outputs
        check_counts(self.export, len(inputs), len(outputs), self._path)
        tensors = [
            Tensor(name, _KINDS.get(each.dtype(), "other"), tuple(each.sizes()))
            for name, each in zip((self.export.input_name, *names), inputs + outputs, strict=True)
        ]
        check_graph(self.export, tensors[:1], tensors[1:], self._path)
        # A program runs for one caller at a time.
        self._lock = threading.Lock()
        with self._opening():  # the first run loads the method
            answer = self._execute(np.zeros(inputs[0].sizes(), np.float32))
        check_answer(self.export, answer, self._path)

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """Without what ExecuTorch prints; its errors are an InputError that names the file."""
        try:
            with quietly("ExecuTorch"):
                yield
        except Exception as e:  # its exceptions have no base of their own
            raise InputError(
                f"{self._path} is not a program that ExecuTorch can run: {e}; export it again"
            ) from e

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        check_float_input(self.export, x, self._path)
        with self._lock:
            try:
                outputs = self._execute(x)
            except Exception as e:
                raise cannot_run(self._path, x, e) from e
        check_answer(self.export, outputs, self._path)
        return outputs

    def _execute(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name, copied, as the next call writes over the program's own.

        The runtime's way to copy them takes threads of PyTorch's.
        """
        inputs = [torch.from_numpy(np.ascontiguousarray(x))]
        found = self._module.run_method(_METHOD, inputs, clone_outputs=False)
        return {
            name: values.numpy().copy()
            for name, values in zip(self.export.outputs, found, strict=True)
        }


def _check_backends(program: bytes, known: Sequence[str], path: str) -> None:
    """InputError where a program would be run by another backend of the runtime than XNNPACK.

    Some of them open libraries, and take models that were compiled before.
    """
    for name in known:
        if name != _BACKEND and name.encode() in program:
            raise InputError(
                f"{path} is for ExecuTorch's {name}, which `topformer export` never uses: it is "
                "not opened"
            )


def _set_threads(pool: ModuleType, count: int) -> None:
    with quietly("ExecuTorch"):  # the first call in a process makes the pool
        before = pool._threadpool_get_thread_count()
    if before == count:
        return
    if _open:
        logger.warning(
            "ExecuTorch has %d thread(s) in this process while another file is open: `num_threads` "
            "%d is not used",
            before,
            count,
        )
        return
    with quietly("ExecuTorch"):
        pool._unsafe_reset_threadpool(count)  # it is safe while no program is open


FORMAT = ExportFormat(
    name="executorch",
    extension=".pte",
    beside=(".json",),
    write=write_executorch,
    runtime="executorch",
    session=ExecuTorchSession,
    reads=(".pte",),
    libraries=("executorch",),
    exporter="torch.export, XNNPACK",
    extra="executorch",
    precisions=("float32", "int8"),
    not_written={
        "float16": "XNNPACK takes float16 weights with float16 activations alone: the input and "
        "the outputs would be float16, too"
    },
    fixed_size=True,
    gives_boxes=False,
    gives_labels=False,
    takes_images=False,
)
