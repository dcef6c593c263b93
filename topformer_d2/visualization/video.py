"""Predictions drawn into a video."""

from __future__ import annotations

import os

from tqdm.auto import tqdm

from ..errors import InputError
from ..files import check_output
from ..inference import Predictor
from ..inference.video import VideoReader, VideoWriter
from .frames import FramePainter


def predict_video(
    predictor: Predictor,
    source: str,
    output: str,
    *,
    min_score: float = 0.5,
    json_file: str | os.PathLike | None = None,
    track: bool = False,
) -> tuple[int, str | None]:
    """Write the frames of a video with their labels and boxes drawn over them.

    Args:
        predictor: of any backend.
        source: a video file.
        output: an .mp4 or .avi file; what VideoWriter keeps of it after an error or Ctrl-C.
        min_score: as FramePainter's.
        json_file: as FramePainter's.
        track: as FramePainter's.

    Returns:
        the number of frames, and what is wrong with the source where some of its frames could not
        be read (VideoReader's `problem`), else None.

    Raises:
        InputError: the source cannot be read, or an output cannot be written, is not named as a
            video, or is the source; or as FramePainter.
    """
    if os.path.realpath(source) == os.path.realpath(output):
        raise InputError(f"{output} would overwrite the input: use another name")
    if json_file and os.path.realpath(json_file) in map(os.path.realpath, (source, output)):
        raise InputError(f"`json_file` {os.fspath(json_file)} is also the input or `output`")
    reader = VideoReader(source)
    paint = FramePainter(
        predictor, reader.frame_rate, min_score=min_score, json_file=json_file, track=track
    )
    check_output(output, "output")
    with paint.saving(), VideoWriter(output, reader.frame_rate) as writer:
        for frame in tqdm(reader, total=reader.num_frames or None, unit="frame"):
            writer.write(paint(frame))
    return paint.num_frames, reader.problem
