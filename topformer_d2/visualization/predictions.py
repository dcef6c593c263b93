"""Predictions as pictures: of image files, and of a dataset beside its truth."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..data.images import MAX_PIXELS, read_image
from ..data.registered import load_records, spread_evenly
from ..inference import Predictor, Scene
from ..inference.prediction_files import write_predictions
from .painter import Painter
from .sheet import make_sheet

# Pixels of an image's shorter side from which the names of its boxes leave most of it free.
_READABLE = 240


def predict_files(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    min_score: float = 0.5,
    json_file: str | os.PathLike | None = None,
    max_pixels: int = MAX_PIXELS,
    label_format: str | None = None,
    keep: Sequence[str | os.PathLike] = (),
) -> list[str]:
    """Write what write_predictions does, and `<name>_overlay.jpg` of each image.

    An overlay shows labels and boxes over the image, with a legend. The other parameters, what is
    returned and what is raised are those of write_predictions.

    Args:
        min_score: boxes below it are not drawn, nor written as labels; json_file has them all.
    """
    painter = Painter(predictor.info)

    def draw(image: np.ndarray, scene: Scene) -> np.ndarray:
        seen = scene.above(min_score)
        picture = painter.draw(np.ascontiguousarray(image[:, :, ::-1]), seen)
        return painter.add_legend(picture, seen)[:, :, ::-1]

    return write_predictions(
        predictor,
        paths,
        output,
        json_file=json_file,
        max_pixels=max_pixels,
        draw=draw,
        label_format=label_format,
        min_score=min_score,
        keep=keep,
    )


def prediction_sheet(
    predictor: Predictor, dataset_name: str, num_images: int, *, min_score: float = 0.5
) -> np.ndarray:
    """Images spread evenly over a dataset, each beside its truth and its prediction.

    Args:
        predictor: of any backend.
        dataset_name: a registered dataset with its truth.
        num_images: rows of the sheet, at most.
        min_score: boxes below it are left out.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    records = load_records(dataset_name)
    painter = Painter(predictor.info)
    rows = []
    for record in spread_evenly(records, num_images):
        image = read_image(record["file_name"])
        truth = Scene.from_record(record, painter.tasks)
        found = predictor(image).above(min_score)
        rgb = np.ascontiguousarray(image[:, :, ::-1])
        if "instances" in painter.tasks:
            # The names of boxes have a size of their own, and would cover a small image.
            factor = -(-_READABLE // min(rgb.shape[:2]))
            rgb = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
            truth, found = truth.enlarged(factor), found.enlarged(factor)
        drawn = [painter.draw(rgb, scene, opacity=0.7) for scene in (truth, found)]
        rows.append([rgb, drawn[0], painter.add_legend(drawn[1], truth, found)])
    return make_sheet(rows, ["image", "truth", "prediction"])
