"""What a segmenter gets wrong on a dataset, as plain values and small pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...data.images import read_image, read_label
from ...data.scene import Scene
from ...evaluation import PixelMistakes
from ...evaluation.boundary import RATIO
from ...evaluation.pixel_mistakes import Place
from ...visualization import Painter
from ...visualization.mistakes import crop, pixel_errors, shrunk
from .pictures import ROW_NAMES, THUMBNAIL, Row, picture

# Pairs of classes, and suspects, that are shown with pictures.
PAIRS, SUSPECTS = 12, 24


def describe_pixels(
    evaluator: PixelMistakes,
    metrics: Mapping[str, float],
    painter: Painter,
    label_files: Mapping[str, str],
) -> tuple[dict, list[Row]]:
    """The part of a report about the pixels.

    Args:
        evaluator: after evaluate().
        metrics: its results, in percent.
        painter: in whose colours pictures are drawn.
        label_files: the label's file of each image file.

    Returns:
        plain values, with pictures as JPEG in base64, "calibration" and "suspects" None where the
        evaluator had no confidence; and the worst images' pictures, the worst first.
    """
    found, names = evaluator.findings, evaluator.class_names
    boundary = found.boundary.iou()
    truth = evaluator.matrix.sum(axis=1)
    has_mean = bool(truth.sum()) and not np.isnan(boundary).all()
    values: dict[str, Any] = {
        "metrics": {
            **{key: metrics[key] for key in ("mIoU", "fwIoU", "mACC", "pACC")},
            "boundary mIoU": float(np.nanmean(boundary)) if has_mean else None,
        },
        "boundary_ratio": RATIO,
        "classes": [
            {
                "class": name,
                "share of pixels": 100 * int(truth[i]) / max(1, int(truth.sum())),
                "IoU": metrics[f"IoU-{name}"],
                "boundary IoU": float(boundary[i]),
                "accuracy": metrics[f"ACC-{name}"],
            }
            for i, name in enumerate(names)
        ],
        "confusion": evaluator.matrix.tolist(),
        "calibration": None,
        "suspects": None,
    }
    if evaluator.has_confidence:
        values["metrics"]["ECE"] = 100 * found.reliability.ece()
        values["calibration"] = found.reliability.to_dict()
    artist = _Artist(painter, label_files, evaluator.ignore_label)
    rows = []
    for image in found.worst.items():
        caption = f"mIoU {image.miou:.1f}"
        rows.append(artist.worst(image.file_name, image.prediction(), caption))
    values["worst"] = [row.to_dict() for row in rows]
    values["pairs"] = _pairs(evaluator, artist)
    if evaluator.has_confidence:
        values["suspects"] = [
            {
                "file": place.file_name,
                "box": list(place.region.box),
                "labelled": names[place.region.truth],
                "predicted": names[place.region.predicted],
                "confidence": place.region.confidence,
                "what": f"{place.region.pixels} pixels",
                "picture": artist.place(place),
            }
            for place in found.suspects.items()[:SUSPECTS]
        ]
    return values, rows


def _pairs(evaluator: PixelMistakes, artist: _Artist) -> list[dict]:
    """The pairs of classes that are confused most, with examples."""
    names, wrong = evaluator.class_names, evaluator.matrix.copy()
    truth = wrong.sum(axis=1)
    np.fill_diagonal(wrong, 0)
    pairs = []
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]:
        i, j = map(int, np.unravel_index(cell, wrong.shape))
        if not wrong[i, j]:
            break
        top = evaluator.findings.examples.get((i, j))
        pairs.append(
            {
                "labelled": names[i],
                "predicted": names[j],
                "count": int(wrong[i, j]),
                "share": 100 * int(wrong[i, j]) / int(truth[i]),
                "examples": [
                    {"file": place.file_name, "picture": artist.place(place)}
                    for place in (top.items() if top else ())
                ],
            }
        )
    return pairs


class _Artist:
    """Draws the images of a dataset with its label maps."""

    def __init__(self, painter: Painter, label_files: Mapping[str, str], ignore_label: int):
        self.painter = painter
        self.label_files = label_files
        self.ignore_label = ignore_label

    def worst(self, file: str, prediction: np.ndarray, caption: str) -> Row:
        """Image, truth, prediction and errors, as thumbnails."""
        image = shrunk(read_image(file, "RGB"), THUMBNAIL)
        size = image.shape[:2]
        rows = _chosen(prediction.shape[0], size[0])
        columns = _chosen(prediction.shape[1], size[1])
        truth = read_label(self.label_files[file])[rows][:, columns]
        prediction = prediction[rows][:, columns]
        scenes = [Scene(label=label) for label in (truth, prediction)]
        drawn = [self.painter.draw(image, scene, 0.7) for scene in scenes]
        errors = pixel_errors(image, prediction, truth, self.ignore_label)
        return Row(file, caption, dict(zip(ROW_NAMES, (image, *drawn, errors), strict=True)))

    def place(self, place: Place) -> str:
        """A region beside its label and its prediction."""
        x0, y0, x1, y1 = place.frame
        image = read_image(place.file_name, "RGB")
        truth = read_label(self.label_files[place.file_name])[y0:y1, x0:x1]
        scenes = [Scene(label=label) for label in (truth, place.prediction())]
        return picture(crop(self.painter, image, place.frame, place.region.box, scenes))


def _chosen(side: int, smaller: int) -> np.ndarray:
    """The places of a side's pixels that its thumbnail keeps."""
    return ((np.arange(smaller) + 0.5) * side / smaller).astype(int)
