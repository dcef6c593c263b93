"""LiteRT files in 8-bit integers: the quantiser of its makers, calibrated on images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.images import read_image
from ..files import folder_beside, naming_full_disks
from ..inference.backends import FileBackend, resize_for
from ..inference.formats import import_extra
from ..inference.formats.description_file import move_described, write_description
from ..inference.formats.litert import SIGNATURE
from ..inference.formats.quiet import quietly

_INPUT = "args_0"  # litert-torch's name of the network's input
# Of LiteRT's, those that are computed in integers. With all that can be, camvid_t had 17.7 mIoU
# instead of 79.4; with these it has 79.3.
_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD")


def write_litert_int8(path: str, backend: FileBackend, files: list[str], target: Path) -> None:
    """Quantise a .tflite file, calibrated on images, and write it and its .json.

    Convolutions, products with weights and sums are in integers. Weights have a scale for each
    channel, activations for each tensor, from the smallest and largest values on the images. The
    input and the outputs stay float32.

    Args:
        path: .tflite file.
        backend: of it.
        files: images.
        target: .tflite file to write.
    """
    room = 3 * os.path.getsize(path)
    with folder_beside(target) as folder, naming_full_disks(target, folder, room):
        partial = folder / target.name
        quantizer = import_extra("ai_edge_quantizer.quantizer", "litert")
        types = import_extra("ai_edge_quantizer.qtyping", "litert")
        config = types.OpQuantizationConfig(
            activation_tensor_config=types.TensorQuantizationConfig(num_bits=8, symmetric=False),
            weight_tensor_config=types.TensorQuantizationConfig(
                num_bits=8, symmetric=True, granularity=types.QuantGranularity.CHANNELWISE
            ),
            compute_precision=types.ComputePrecision.INTEGER,
        )
        with quietly("ai-edge-quantizer"):
            work = quantizer.Quantizer(path)
            for name in _OPERATORS:
                work.update_quantization_recipe(".*", types.TFLOperationName(name), config)
            found = work.calibrate({SIGNATURE: _Inputs(backend, files)}, num_threads=1)
            result = work.quantize(found, enable_progress_report=False)
        partial.write_bytes(result.quantized_model)
        write_description(replace(backend.export, precision="int8"), partial)
        move_described(partial, target)


class _Inputs:
    """{_INPUT: (1, 3, H, W) float32} for each image, resized as the Predictor resizes it.

    The quantiser walks over them twice, so it is no iterator.
    """

    def __init__(self, backend: FileBackend, files: list[str]):
        self._backend, self._files = backend, files

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for file in self._files:
            image = resize_for(self._backend, read_image(file))
            yield {_INPUT: self._backend.normalize([image])}
