"""MNN files in 8-bit integers: MNN's own calibration on images."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ..data.images import read_image
from ..files import folder_beside, naming_full_disks
from ..inference.backends import FileBackend, resize_for
from ..inference.formats.converters import run_converter
from ..inference.formats.description_file import move_described, write_description
from ..inference.model_info import ModelInfo

# Not MNN's program of this name, which reports figures on the model through a logger.
_QUANTIZE = "import sys, _tools; _tools.mnnquant(sys.argv)"


def write_mnn_int8(path: str, backend: FileBackend, files: list[str], target: Path) -> None:
    """Quantise an .mnn file, calibrated on images, and write it and its .json.

    Weights have a scale for each channel, activations for each tensor, from a moving average of
    their ranges. (MNN's other way, by the Kullback-Leibler divergence, lost several times as many
    pixels of a TopFormer-T.)

    Args:
        path: .mnn file.
        backend: of it.
        files: images; they are all resized to the size of the file or, where that is free, to the
            size that the first one has in the Predictor.
        target: .mnn file to write.

    Raises:
        RuntimeError: MNN cannot quantise it.
    """
    room = 3 * os.path.getsize(path)
    with folder_beside(target) as folder, naming_full_disks(target, folder, room):
        images = folder / "images"
        images.mkdir()
        height, width = resize_for(backend, read_image(files[0])).shape[:2]
        for i, file in enumerate(files):
            image = cv2.resize(resize_for(backend, read_image(file)), (width, height))
            (images / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        config = _config(backend.info, (height, width), images, len(files))
        (folder / "config.json").write_text(json.dumps(config))
        command = [sys.executable, "-c", _QUANTIZE, os.path.abspath(path), "int8.mnn"]
        partial = folder / target.name
        run_converter([*command, "config.json"], folder, "int8.mnn").replace(partial)
        write_description(replace(backend.export, precision="int8"), partial)
        move_described(partial, target)


def _config(info: ModelInfo, size: tuple[int, int], images: Path, count: int) -> dict:
    """As MNN's tool reads it. It normalises the images by itself."""
    return {
        "format": info.image_format,
        "mean": list(info.pixel_mean),
        "normal": (1 / np.array(info.pixel_std)).tolist(),
        "height": size[0],
        "width": size[1],
        "path": f"{os.path.abspath(images)}/",
        "used_image_num": count,
        "batch_size": 1,
        "feature_quantize_method": "EMA",
        "weight_quantize_method": "MAX_ABS",
    }
