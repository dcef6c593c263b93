"""Predictions drawn into a video."""

from __future__ import annotations

import os

import cv2
from tqdm.auto import tqdm

from ..errors import InputError
from ..files import check_output
from ..inference import Predictor
from ..inference.video import VideoReader, VideoWriter
from .painter import Painter


def predict_video(
    predictor: Predictor, source: str, output: str, *, min_score: float = 0.5
) -> tuple[int, str | None]:
    """Write the frames of a video with their labels and boxes drawn over them.

    Args:
        predictor: of any backend.
        source: a video file.
        output: an .mp4 or .avi file; what VideoWriter keeps of it after an error or Ctrl-C.
        min_score: boxes below it are not drawn.

    Returns:
        the number of frames, and what is wrong with the source where some of its frames could not
        be read (VideoReader's `problem`), else None.

    Raises:
        InputError: the source cannot be read, or the output cannot be written, is not named as a
            video, or is the source.
    """
    if os.path.realpath(source) == os.path.realpath(output):
        raise InputError(f"{output} would overwrite the input: use another name")
    reader, painter = VideoReader(source), Painter(predictor.info)
    check_output(output, "output")
    done = 0
    with VideoWriter(output, reader.frame_rate) as writer:
        for frame in tqdm(reader, total=reader.num_frames or None, unit="frame"):
            scene = predictor(frame).above(min_score)
            picture = painter.draw(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), scene)
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            done += 1
    return done, reader.problem
