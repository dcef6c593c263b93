"""Frames out of video files and into them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..data.images import IMAGE_EXTENSIONS
from ..errors import InputError


def is_video(path: str) -> bool:
    """Whether this is a file with an extension that is no image's; OpenCV reads many."""
    return os.path.isfile(path) and Path(path).suffix.lower() not in ("", *IMAGE_EXTENSIONS)


class VideoReader:
    """Iterates over the frames of a video file or camera, (H, W, 3) uint8 BGR, each time anew.

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
        capture = self._open()
        self.frame_rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.num_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._camera = None if isinstance(source, str) else capture  # which is slow to open again
        if self._camera is None:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        is_file = isinstance(self._source, str)
        if is_file and not os.path.isfile(self._source):
            raise InputError(f"video {self._source} does not exist")
        capture = cv2.VideoCapture(self._source)
        if not capture.isOpened():
            if is_file:
                raise InputError(f"{self._source} is no video that OpenCV can read")
            raise InputError(f"camera {self._source} cannot be opened")
        return capture

    def __iter__(self) -> Iterator[np.ndarray]:
        capture, self._camera = self._camera or self._open(), None
        try:
            read, frame = capture.read()
            if not read:
                raise InputError(f"{self._source} has no frame that can be read")
            while read:
                yield frame
                read, frame = capture.read()
        finally:
            capture.release()


class VideoWriter(contextlib.AbstractContextManager):
    """Writes an .mp4 (MPEG-4), or an .avi (Motion JPEG), beside its place and renames it.

    After Ctrl-C what was written is kept: it is a whole video of fewer frames. After an error, too,
    but not in the place of an earlier video.
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
        self._writer, self._size, self._num_frames = None, (0, 0), 0

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 BGR, of the first one's size.

        Raises:
            InputError: it has another size, or OpenCV cannot write such a video.
        """
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter_fourcc(*self._codec)
            writer = cv2.VideoWriter(str(self._partial), code, self._frame_rate, size)
            if not writer.isOpened():
                self._partial.unlink(missing_ok=True)
                mend = "" if self._path.suffix.lower() == ".avi" else ": try .avi"
                raise InputError(
                    f"OpenCV cannot write {self._path} of {size[0]}x{size[1]} pixels{mend}"
                )
            self._writer, self._size = writer, size
        if size != self._size:  # which OpenCV drops without a word
            raise InputError(
                f"{self._path}: a frame of {size[0]}x{size[1]} pixels after one of "
                f"{self._size[0]}x{self._size[1]}; a video has one size"
            )
        self._writer.write(frame)
        self._num_frames += 1

    def _is_whole(self) -> bool:
        """Whether all frames are there at their size: OpenCV tells of no failure."""
        capture = cv2.VideoCapture(str(self._partial))
        read, frame = capture.read()
        num_frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        # Odd sides lose a pixel.
        return (
            read
            and max(self._size[0] - frame.shape[1], self._size[1] - frame.shape[0]) <= 1
            and num_frames == self._num_frames
        )

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        if self._writer is None:
            return
        self._writer.release()
        is_whole = self._is_whole()
        wanted = error in (None, KeyboardInterrupt) or not self._path.exists()
        if wanted and is_whole:
            os.replace(self._partial, self._path)
            return
        self._partial.unlink(missing_ok=True)
        if error is None:
            raise InputError(
                f"OpenCV did not write all {self._num_frames} frames of {self._path}, of "
                f"{self._size[0]}x{self._size[1]} pixels: the disk may be full, or the frames too "
                "large for the format"
            )
