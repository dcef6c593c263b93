"""Frames of a video or camera, predicted and drawn."""

from __future__ import annotations

import contextlib
import os

import cv2
import numpy as np

from ..errors import InputError
from ..files import check_output
from ..inference import Predictor
from ..inference.results import check_results, result_lines, written_however_it_ends
from ..inference.tracking import BoxTracker
from .painter import Painter


class FramePainter:
    """Predicts frames one after the other and draws what is in them.

    Attributes:
        num_frames: that were drawn.
    """

    def __init__(
        self,
        predictor: Predictor,
        frame_rate: float,
        *,
        min_score: float = 0.5,
        json_file: str | os.PathLike | None = None,
        track: bool = False,
    ):
        """
        Args:
            predictor: of any backend.
            frame_rate: frames a second, as they come.
            min_score: boxes below it are not drawn, unless their object is tracked.
            json_file: where `saving` writes all boxes in COCO's results format. The image_id is
                the number of the frame, from 0 on; a tracked object has its track_id.
            track: number the objects through the frames; it needs the library trackers.

        Raises:
            InputError: the model finds no boxes, their category ids are unknown, or json_file
                cannot be written.
        """
        info = predictor.info
        if track and "instances" not in info.tasks:
            raise InputError("`track` is for boxes, and this model finds none: leave it out")
        self._json_file = os.fspath(json_file) if json_file else None
        if self._json_file:
            check_results(self._json_file, info)
            check_output(self._json_file, "json_file")
        self._predictor, self._painter, self._min_score = predictor, Painter(info), min_score
        self._tracker = BoxTracker(frame_rate, min_score) if track else None
        self._lines: list[str] = []
        self.num_frames = 0

    def saving(self) -> contextlib.AbstractContextManager[None]:
        """Writes json_file, where there is one, at the end of a block, however that ends."""
        return written_however_it_ends(self._json_file, self._lines)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR of the next frame, also BGR."""
        scene = self._predictor(frame)
        if self._tracker:
            scene = self._tracker(scene)
        if self._json_file:
            ids = self._predictor.info.objects.ids
            self._lines += result_lines(scene, self.num_frames, ids)
        seen = scene.above(self._min_score)
        picture = self._painter.draw(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), seen)
        self.num_frames += 1
        return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
