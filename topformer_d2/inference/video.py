"""Frames out of video files and into them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError

EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


def is_video(path: str) -> bool:
    """By its extension."""
    return Path(path).suffix.lower() in EXTENSIONS


class VideoReader:
    """Iterates over the frames of a video file or camera, (H, W, 3) uint8 BGR.

    Attributes:
        frame_rate: frames a second; 25 where the file does not say.
        num_frames: as the file says; 0 = unknown.
    """

    def __init__(self, source: str | int):
        """
        Args:
            source: a file, or the number of a camera.

        Raises:
            InputError: it cannot be opened.
        """
        self._source = source
        if isinstance(source, str) and not os.path.isfile(source):
            raise InputError(f"video {source} does not exist")
        self._capture = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            raise InputError(f"{source} is no video that OpenCV can read")
        self.frame_rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.num_frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            read, frame = self._capture.read()
            if not read:
                raise InputError(f"{self._source} has no frame that can be read")
            while read:
                yield frame
                read, frame = self._capture.read()
        finally:
            self._capture.release()


class VideoWriter(contextlib.AbstractContextManager):
    """Writes an .mp4 (MPEG-4), or an .avi (Motion JPEG), beside its place and renames it.

    What was written before an error or Ctrl-C is kept: it is a whole video of fewer frames.
    """

    def __init__(self, path: str, frame_rate: float):
        """
        Args:
            path: ends in .mp4 or .avi; its folder is made where it is missing.
            frame_rate: frames a second.

        Raises:
            InputError: another extension.
        """
        codec = {".mp4": "mp4v", ".avi": "MJPG"}.get(Path(path).suffix.lower())
        if codec is None:
            raise InputError(f"{path}: a video is written as .mp4 or .avi")
        self._path, self._codec, self._frame_rate = Path(path), codec, frame_rate
        # The extension chooses the container.
        self._partial = self._path.with_name(f".partial.{self._path.name}")
        self._writer = None

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 BGR, of the first one's size.

        Raises:
            InputError: OpenCV cannot write such a video.
        """
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = (frame.shape[1], frame.shape[0])
            code = cv2.VideoWriter_fourcc(*self._codec)
            self._writer = cv2.VideoWriter(str(self._partial), code, self._frame_rate, size)
            if not self._writer.isOpened():
                raise InputError(f"OpenCV cannot write {self._path}: try .avi")
        self._writer.write(frame)

    def __exit__(self, *exception) -> None:
        if self._writer is not None:
            self._writer.release()
            os.replace(self._partial, self._path)
