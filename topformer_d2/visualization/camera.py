"""Predictions drawn over what a camera sees, in a window and in a video."""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

import numpy as np

from ..errors import InputError, Terminated
from ..files import check_output
from ..inference import Predictor
from ..inference.camera import Camera
from ..inference.video import VideoWriter
from .frames import FramePainter
from .window import Window

_MOST_RATE = 30.0


class CameraRun(NamedTuple):
    """What became of it.

    Attributes:
        num_frames: that were predicted.
        num_left_out: that came while another was predicted.
        seconds: from the first to the last.
        problem: why the camera gave no more frames; None = the user ended it.
    """

    num_frames: int
    num_left_out: int
    seconds: float
    problem: str | None


def predict_camera(
    predictor: Predictor,
    number: int,
    output: str | None = None,
    *,
    min_score: float = 0.5,
    json_file: str | os.PathLike | None = None,
    track: bool = False,
) -> CameraRun:
    """Show the frames of a camera with their labels and boxes, and record them.

    It goes on until Ctrl-C, until the window is closed, or until the camera gives no more frames. A
    frame is always the newest one. A recorded frame is repeated while the next one is predicted, so
    that the video is as fast as what it shows.

    Args:
        predictor: of any backend.
        number: of the camera, 0 or more.
        output: an .mp4 or .avi file; what VideoWriter keeps of it after an error or Ctrl-C. None =
            nothing is recorded.
        min_score: as FramePainter's.
        json_file: as FramePainter's.
        track: as FramePainter's.

    Raises:
        InputError: the camera cannot be opened or gives no frame, there is neither a window nor an
            `output`, or that cannot be written; or as FramePainter.
    """
    if output is not None:
        check_output(output, "output")
    with contextlib.ExitStack() as stack:
        window = _open_window(stack, has_output=output is not None)
        camera = stack.enter_context(Camera(number))
        paint = FramePainter(
            predictor, camera.frame_rate, min_score=min_score, json_file=json_file, track=track
        )
        stack.enter_context(paint.saving())
        recorder = None
        if output is not None:
            rate = min(camera.frame_rate, _MOST_RATE)
            recorder = _Recorder(stack.enter_context(VideoWriter(output, rate)), rate)
        start = end = 0.0
        # Within the block, so that a video that ends so is whole; SIGTERM goes on.
        try:
            for frame in camera:
                taken = time.monotonic()
                start = start or taken
                drawn = paint(frame)
                end = time.monotonic()
                if recorder:
                    recorder.write(drawn, taken - start)
                if window and not window.show(drawn):
                    break
        except KeyboardInterrupt as e:
            if isinstance(e, Terminated):
                raise
        done = paint.num_frames
        if not done and camera.problem:
            raise InputError(camera.problem)
        left_out = max(0, camera.num_frames - done)
    return CameraRun(done, left_out, end - start, camera.problem)


def _open_window(stack: contextlib.ExitStack, has_output: bool) -> Window | None:
    """The window, or None where the video alone is made."""
    try:
        return stack.enter_context(Window("topformer predict"))
    except OSError as e:
        if has_output:
            return None
        raise InputError(
            f"there is no window to show the camera in ({e}): name `output`, an .mp4 or .avi file"
        ) from e


class _Recorder:
    """Writes frames that come at any time to a video of a fixed frame rate."""

    def __init__(self, writer: VideoWriter, rate: float):
        self._writer, self._rate = writer, rate
        self._last: np.ndarray | None = None
        self._written = 0

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Add a frame that came so many seconds after the first, and what leads up to it."""
        due = int(seconds * self._rate)
        while self._last is not None and self._written < due:
            self._writer.write(self._last)
            self._written += 1
        if self._written <= due:
            self._writer.write(frame)
            self._written += 1
        self._last = frame
