"""Exported networks in 8-bit integers, calibrated on images by the runtimes' own tools."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.image_files import list_images
from ..data.images import read_image
from ..data.registered import spread_evenly
from ..errors import InputError
from ..files import check_local_output, folder_beside, naming_full_disks
from ..inference.backends import FileBackend, resize_for
from ..inference.explanation import metadata_json
from ..inference.formats import FORMATS, import_extra, runtimes_of
from ..inference.formats.description_file import check_takes_place
from ..inference.formats.onnx import read_onnx, save_described
from .quantize_litert import write_litert_int8

# Images of a folder that are used, at most, spread over it.
MAX_IMAGES = 32
# What stays in float32, by the names of the graph's nodes.
# The stem and the first block see the largest maps, where rounding costs most accuracy and where
# ONNX Runtime's integer convolutions of few channels are slower than its float ones.
# Resizing by products (sim, join) is slower in integers, too.
# The rest is arithmetic of sizes and boxes, and what follows the logits.
_FLOAT = re.compile(
    r"/pyramid/(stem|blocks\.0)/|/pool/|/(sim\d|join)/MatMul"
    r"|^/decoder/|^/[A-Z][A-Za-z]*(_\d+)?$"
)


def quantize_model(path: str, images: str, output: str) -> int:
    """Write an exported file with 8-bit weights and activations.

    Activations have a scale for each tensor, found on the images, and weights one for each channel.
    The file can be run wherever the other one can, and describes its model as that does.

    Args:
        path: .onnx or .tflite file of `topformer export`, without preprocessing.
        images: a folder of images like those that it will see, or a glob.
        output: file of the same extension to write.

    Returns:
        the number of images used.

    Raises:
        InputError: anything of this cannot be read or written so.
        OSError: `output` cannot be written, as on a full disk.
    """
    backend = check_files(path, output)
    files = spread_evenly(list_images(images, "images"), MAX_IMAGES)
    target = Path(output)
    try:
        _WRITERS[target.suffix](path, backend, files, target)
    except (InputError, OSError, MemoryError):
        raise
    except Exception as e:  # the libraries' exceptions have no base of their own
        raise InputError(f"{path} cannot be quantised: {e}; {output} was not written") from e
    return len(files)


def _write(path: str, backend: FileBackend, files: list[str], target: Path) -> None:
    """Quantise an .onnx file, calibrated on the images `files`, and write it to `target`.

    Activations are unsigned, with scales from their smallest and largest values.
    """
    onnx = import_extra("onnx")
    quantization = import_extra("onnxruntime.quantization")
    size = 3 * os.path.getsize(path)
    with folder_beside(target) as folder, naming_full_disks(target, folder, size):
        prepared, partial = str(folder / "prepared.onnx"), folder / target.name
        # ONNX Runtime's preparation: shapes are inferred, so that tensors have known ranks.
        import_extra("onnxruntime.quantization.shape_inference").quant_pre_process(
            path, prepared, skip_symbolic_shape=True
        )
        graph = onnx.load(prepared).graph
        quantization.quantize_static(
            prepared,
            str(partial),
            _Reader(_inputs(backend, files)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in graph.node if _FLOAT.search(node.name)],
        )
        model = onnx.load(partial)
        info = replace(read_onnx(path)[0], precision="int8")
        save_described(model, metadata_json(info), partial)
        os.replace(partial, target)


def check_files(path: str, output: str) -> FileBackend:
    """The file at `path`, on one thread, where it can be quantised and `output` be written.

    Arguments and errors are quantize_model's.
    """
    suffix = Path(path).suffix
    if suffix not in _WRITERS:
        for kind in FORMATS.values():
            reason = kind.not_written.get("int8")
            if "int8" in kind.precisions:
                reason = (
                    f"`topformer export --format {kind.name} --precision int8 --images DIR` writes "
                    "such a file in int8, from the model's config and weights"
                )
            if kind.extension == suffix and reason:
                raise InputError(f"`path` {path} cannot be quantised: {reason}")
        raise InputError(
            f"`path` {path}: an {' or '.join(_WRITERS)} file of `topformer export` is quantised"
        )
    if suffix == ".onnx":
        import_extra("onnxruntime.quantization")
    elif suffix == ".tflite":
        import_extra("ai_edge_quantizer.quantizer", "litert")
    backend = FileBackend(path, runtimes_of(suffix)[0], num_threads=1)
    if backend.does_resizing:
        raise InputError(
            f"{path} has the preprocessing inside: export it without `with_preprocessing` to "
            "quantise it"
        )
    precision = backend.export.precision
    if precision == "int8" or (suffix == ".onnx" and _is_quantised(path)):
        raise InputError(f"`path` {path} is in 8-bit integers already: name the float32 file")
    if precision != "float32":
        raise InputError(f"`path` {path} has weights in {precision}: name the float32 file")
    check_local_output(output, "output", suffix)
    if Path(output).exists() and os.path.samefile(path, output):
        raise InputError(f"`output` {output} is the file of `path`: give it another name")
    if suffix != ".onnx":
        check_takes_place(Path(output), "output")
    return backend


def _is_quantised(path: str) -> bool:
    nodes = import_extra("onnx").load(path).graph.node
    return any(node.op_type == "QuantizeLinear" for node in nodes)


def _inputs(backend: FileBackend, files: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """{"images": (1, 3, H, W) float32} for each image, resized as the Predictor resizes it."""
    for file in files:
        yield {"images": backend.normalize([resize_for(backend, read_image(file))])}


class _Reader:
    """An iterator as ONNX Runtime's CalibrationDataReader."""

    def __init__(self, inputs: Iterator[dict[str, np.ndarray]]):
        self._inputs = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


# By the extension of the files.
_WRITERS = {".onnx": _write, ".tflite": write_litert_int8}
