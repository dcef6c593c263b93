"""A user's program, which `make lint` checks with mypy's strict settings; no test runs it.

assert_type fails where a name of the package is Any, as where its types do not reach the user.
"""

from __future__ import annotations

import numpy as np
from typing_extensions import assert_type

import topformer_d2
from topformer_d2 import InputError, Predictor, Scene, get_config
from topformer_d2.export import Difference, export_model
from topformer_d2.inference.export_info import ExportInfo


def label_of(file: str, image: np.ndarray) -> np.ndarray | None:
    """A Predictor of an exported file, on one image and on several."""
    predictor = Predictor(file, num_threads=1)
    scene = predictor(image)
    assert_type(scene, Scene)
    assert_type(predictor([image, image], confidence=True), list[Scene])
    assert_type(scene.size, tuple[int, int] | None)
    assert_type(predictor.info.pixels.names, tuple[str, ...])
    for path, found in predictor.folder("photos"):
        assert_type(path, str)
        assert_type(found, Scene)
    return scene.label


def export(weights: str) -> list[str]:
    """From a shipped config to a checked file."""
    cfg = topformer_d2.get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu"])
    info, differences = export_model(cfg, weights, "model.onnx", size=(512, 512))
    assert_type(info, ExportInfo)
    assert_type(differences, list[Difference])
    return [str(difference) for difference in differences]


def scene_of_boxes(boxes: np.ndarray, classes: np.ndarray) -> Scene:
    """A Scene of one's own, and the error that a user can fix."""
    try:
        get_config("no_such_config")
    except InputError as error:
        assert_type(str(error), str)
    return Scene(boxes=boxes, classes=classes, size=(480, 640))
