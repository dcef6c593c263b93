"""The ncnn format: writing files by pnnx, and running them on the CPU."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ...files import folder_beside
from ..export_info import ExportInfo
from ..graph import check_answer
from .base import ExportFormat, cannot_run, check_float_input, import_extra
from .converters import run_converter
from .description_file import read_description, write_description
from .grouping import group_large_maps
from .pooling import Pooling
from .tracing import example_input

_BESIDE = (".bin",)
# Of the numbers in between: float16 and bfloat16 where the processor has them, and Winograd's
# convolution, whose rounding is many times that of the others.
_INEXACT = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    *("use_bf16_packed", "use_bf16_storage", "use_winograd_convolution"),
)

# Of memory that C code gives to Python as a capsule.
_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def write_ncnn(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path` (.param), its weights (.bin) and its description (.json).

    pnnx reads the network as it was traced here. The input and the outputs have the names that
    `info` gives them.
    """
    pnnx = import_extra("pnnx", FORMAT.extra)
    example = example_input(info)
    group_large_maps(network, example)
    with folder_beside(path) as folder:
        with torch.no_grad(), warnings.catch_warnings(), NativePooling():
            warnings.simplefilter("ignore")  # what becomes a constant is one here
            traced = torch.jit.trace(network, example, check_trace=False)
        traced.save(str(folder / "traced.pt"))
        sides = ",".join(map(str, example.shape))
        fp16 = f"fp16={int(info.precision == 'float16')}"
        command = [pnnx.EXEC_PATH, "traced.pt", f"inputshape=[{sides}]f32", fp16]
        text = run_converter(command, folder, "traced.ncnn.param").read_text()
        names = {"in0": info.input_name}
        names |= {f"out{i}": name for i, name in enumerate(info.outputs)}
        path.write_text(_rename(text, names))
        (folder / "traced.ncnn.bin").replace(path.with_suffix(".bin"))
    write_description(info, path, _BESIDE)


class NativePooling(Pooling):
    """Within it F.adaptive_avg_pool2d is traced as one operator, which ncnn has, of constant size.

    Not ExactPooling: the product with a matrix of one row, which averages all rows of a map, is
    wrong in ncnn. It takes that matrix for a vector, the result lacks an axis, and what comes after
    it writes outside of its memory.
    """

    def pool(self, x: Tensor, size: Sequence) -> Tensor:
        return F.adaptive_avg_pool2d(x, [None if n is None else int(n) for n in size])


def _rename(text: str, names: Mapping[str, str]) -> str:
    """A .param with other names of blobs."""
    magic, counts, *layers = text.splitlines()
    lines = [magic, counts]
    for layer in layers:
        kind, name, num_inputs, num_outputs, *rest = layer.split()
        count = int(num_inputs) + int(num_outputs)
        blobs = [names.get(blob, blob) for blob in rest[:count]]
        lines.append(" ".join([kind, name, num_inputs, num_outputs, *blobs, *rest[count:]]))
    return "\n".join(lines) + "\n"


class NcnnSession:
    """A .param file in ncnn, used as OnnxRuntimeSession is. It computes in float32."""

    channels_last = False

    def __init__(self, path: str | Path, num_threads: int | None = None):
        """Arguments and errors as OnnxRuntimeSession has them."""
        ncnn = import_extra("ncnn", FORMAT.extra)
        self._path = str(path)
        self.export, content = read_description(path, _BESIDE)
        self._mat, self._net = ncnn.Mat, ncnn.Net()
        for option in _INEXACT:
            setattr(self._net.opt, option, False)
        if num_threads:
            self._net.opt.num_threads = num_threads
        graph, weights = (content[each] for each in (FORMAT.extension, *_BESIDE))
        # ncnn's reader of text takes a byte of 0 for the end.
        is_text = graph.isascii() and b"\0" not in graph
        if (
            not is_text
            or self._net.load_param_mem(graph.decode()) != 0
            or self._net.load_model(_reader(ncnn, weights)) != 0
        ):
            raise InputError(f"{path} is not a model that ncnn can run: export it again")
        names, export = self._net.output_names(), self.export
        if self._net.input_names() != [export.input_name] or not {*export.outputs} <= {*names}:
            raise InputError(
                f"{path} is not the network that it describes: it takes "
                f"{self._net.input_names()[:20]} and gives {names[:20]}; export it again"
            )

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        check_float_input(self.export, x, self._path)
        extractor = self._net.create_extractor()
        image = np.ascontiguousarray(x[0])  # which has to live as long as the Mat
        outputs = {}
        status = extractor.input(self.export.input_name, self._mat(image))
        for name in self.export.outputs:
            status, found = extractor.extract(name) if status == 0 else (status, None)
            if status != 0:
                raise cannot_run(self._path, x, ValueError(f"ncnn gives {status} for {name}"))
            outputs[name] = np.array(found)[None]
        check_answer(self.export, outputs, self._path)
        return outputs


def _reader(ncnn: Any, content: bytes) -> Any:
    """What ncnn reads weights from, as it reads a file; at their end it is given less.

    Not Net.load_model_mem, which neither knows where the bytes end nor returns whether it worked,
    and whose weights may lie in Python's bytes after those are gone.
    """

    class Reader(ncnn.DataReader):
        def __init__(self) -> None:
            super().__init__()
            self._left = memoryview(content)

        def read(self, place: object, size: int) -> int:
            part, self._left = self._left[:size], self._left[size:]
            ctypes.memmove(_address(place, None), bytes(part), len(part))
            return len(part)

    return Reader()


FORMAT = ExportFormat(
    name="ncnn",
    extension=".param",
    beside=(*_BESIDE, ".json"),
    write=write_ncnn,
    runtime="ncnn",
    session=NcnnSession,
    reads=(".param",),
    libraries=("ncnn", "pnnx"),
    exporter="pnnx, from TorchScript",
    extra="ncnn",
    precisions=("float32", "float16"),
    not_written={
        "int8": "its calibration is done by the programs `ncnn2table` and `ncnn2int8`, which pip's "
        "ncnn does not have"
    },
    fixed_size=True,
    gives_boxes=False,
    gives_labels=False,
    takes_images=False,
)
