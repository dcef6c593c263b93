"""Boxes in COCO's results format, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..data.scene import Scene
from ..errors import InputError, describe_os_error, printable
from ..files import write_beside
from ..logs import get_logger
from .label_files import LabelWriter
from .model_info import ModelInfo

logger = get_logger(__name__)


def check_results(json_file: str, info: ModelInfo) -> None:
    """Raise InputError, before the work and not after, where boxes cannot be written."""
    if "instances" not in info.tasks:
        raise InputError(f"this model finds no boxes to write to {json_file}")
    if info.objects.ids is None:
        raise InputError(
            f"the category ids to write to {json_file} are unknown: DATASETS.TEST must name a "
            "registered dataset with the model's classes, for an exported file when it is exported"
        )


def result_lines(scene: Scene, image_id: int | str, category_ids: Sequence[int]) -> list[str]:
    """The boxes of one image in COCO's results format, one JSON object a line.

    The box of an object that is tracked has its "track_id" as well.

    Raises:
        InputError: a number is not finite.
    """
    scores = [] if scene.scores is None else scene.scores.tolist()
    if not all(np.isfinite(each).all() for each in (scene.boxes, scores)):
        raise InputError("its boxes or scores hold NaN or infinity, which JSON does not have")
    results = [
        {
            "image_id": image_id,
            "category_id": category_ids[category],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for (x0, y0, x1, y1), category, score in zip(
            scene.boxes.tolist(), scene.classes.tolist(), scores, strict=True
        )
    ]
    tracks = [] if scene.tracks is None else scene.tracks.tolist()
    for result, track in zip(results, tracks, strict=False):
        if track > 0:
            result["track_id"] = track
    return [f"{json.dumps(result)}\n" for result in results]


@contextmanager
def written_however_it_ends(
    path: str | None, lines: list[str], labels: LabelWriter | None = None
) -> Iterator[None]:
    """Write what is one file for all images at the block's end, and where an exception ends it."""
    try:
        yield
    except BaseException:
        try:
            if path and lines:  # without boxes, an earlier file stays
                write_beside(path, "".join(lines).encode())
            if labels:
                labels.end()
        except OSError as e:
            reason = printable(describe_os_error(e))
            logger.error("what was found in the images that were done is not written: %s", reason)
        raise
    if path:
        write_beside(path, "".join(lines).encode())
    if labels:
        labels.end()
