"""Reading and writing videos."""

from __future__ import annotations

import contextlib
import numbers
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.image_files import IMAGE_EXTENSIONS
from ..errors import InputError
from ..files import check_regular_file, folder_beside
from .containers import counts_frames, is_cut

_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
# Frames in a row that cannot be decoded after which a file is taken to end.
_MOST_FAILURES = 10_000
# Free bytes below which a disk was full when a write failed: what is written comes in blocks.
_FULL = 1 << 20


def is_video(path: str) -> bool:
    """Whether this is a file whose extension is not an image's; OpenCV reads many."""
    return os.path.isfile(path) and Path(path).suffix.lower() not in ("", *IMAGE_EXTENSIONS)


class VideoReader:
    """Iterates over the frames of a video file or camera, (H, W, 3) uint8 BGR, each time anew.

    Frames of a file that cannot be decoded are left out; `problem` then says how many.

    Attributes:
        frame_rate: frames a second; 25 where the file does not say.
        num_frames: as the file says, for many kinds an estimate; 0 = unknown.
        problem: when all frames have been read, what is wrong with the file: that some could not
            be read, or that it is cut; None = nothing was noticed.
    """

    def __init__(self, source: str | os.PathLike | int):
        """
        Args:
            source: a file, or the number of a camera, 0 or more.

        Raises:
            InputError: it is neither, or cannot be opened.
        """
        self._source: Any = _checked_source(source)
        self._is_file = isinstance(self._source, str)
        self.problem: str | None = None
        capture = self._open()
        self.frame_rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.num_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._camera = None if self._is_file else capture  # which is slow to open again
        if self._camera is None:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        if self._is_file:
            if not os.path.exists(self._source):
                raise InputError(f"video {self._source} does not exist")
            check_regular_file(self._source)
        capture = cv2.VideoCapture(self._source)
        if not capture.isOpened():
            if self._is_file:
                raise InputError(f"{self._source} is not a video that OpenCV can read")
            raise InputError(f"camera {self._source} cannot be opened")
        return capture

    def __iter__(self) -> Iterator[np.ndarray]:
        capture, self._camera = self._camera or self._open(), None
        self.problem, times, num_failed = None, [], 0
        try:
            for frame, failed in self._frames(capture):
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
                num_failed += failed
                yield frame
        finally:
            capture.release()
        if not times:
            raise InputError(f"{self._source} has no frame that can be read")
        if self._is_file:
            self.problem = self._find_problem(times, num_failed)

    def _frames(self, capture: cv2.VideoCapture) -> Iterator[tuple[np.ndarray, int]]:
        """Each frame, with the number of those before it that could not be decoded."""
        tries = failed = 0
        while True:
            read, frame = capture.read()
            tries += 1
            if read:
                yield frame, failed
                failed = 0
                continue
            # At the end OpenCV says what it says of a frame that it cannot decode.
            failed += 1
            most = min(_MOST_FAILURES, self.num_frames - tries) if self.num_frames else 100
            if not self._is_file or failed > most:
                return

    def _find_problem(self, times: list[float], num_failed: int) -> str | None:
        """What a reader of the whole file must be told.

        Args:
            times: of the frames that were read, in milliseconds.
            num_failed: frames between them that could not be decoded.
        """
        if is_cut(self._source):
            is_longer = self.num_frames > len(times)
            said = f" of the {self.num_frames} that it declares" if is_longer else ""
            return f"{self._source} is cut: it ends after {len(times)} frames{said}"
        missing = self.num_frames - len(times)
        exact = counts_frames(self._source)
        if exact is False:
            # Declared by the frame rate, which holds where nearly all frames come at it.
            steps = np.diff(times) * self.frame_rate / 1000
            is_regular = (np.abs(steps - 1) < 0.25).mean() >= 0.9 if len(steps) else True
            exact = is_regular and missing > max(1, self.num_frames // 100)
        missing = max(num_failed, missing if exact else 0)
        if missing <= 0:
            return None
        total = max(self.num_frames, len(times) + num_failed)
        return f"{self._source} is damaged: {missing} of {total} frames could not be read"


def _checked_source(source: Any) -> str | int:
    is_number = isinstance(source, numbers.Integral) and not isinstance(source, bool)
    if is_number and source >= 0:  # OpenCV crashes at others
        return int(source)
    if is_number or not isinstance(source, (str, os.PathLike)):
        raise InputError(
            f"{source!r} is not a video: it takes a file, or the number of a camera, 0 or more"
        )
    return os.fspath(source)


class VideoWriter(contextlib.AbstractContextManager):
    """Writes an .mp4 (MPEG-4), or an .avi (Motion JPEG), beside its place and renames it.

    Its frames are decoded and counted before. After Ctrl-C or SIGTERM what was written is kept: it
    is a whole video of fewer frames. After an error, too, but not in the place of an earlier video,
    and not where the disk is full.
    """

    def __init__(self, path: str | os.PathLike, frame_rate: float):
        """
        Args:
            path: ends in .mp4 or .avi; its folder is made where it is missing.
            frame_rate: frames a second.

        Raises:
            InputError: another extension.
        """
        self._path, self._frame_rate = Path(path), frame_rate
        suffix = self._path.suffix.lower()
        if suffix not in _CODECS:
            raise InputError(f"{path}: a video is written as .mp4 or .avi")
        self._codec, self._name = _CODECS[suffix], f"video{suffix}"  # that chooses the container
        self._folder = contextlib.ExitStack()
        self._partial = Path()
        self._writer: cv2.VideoWriter | None = None
        self._size, self._num_frames = (0, 0), 0

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 BGR, of the first one's size.

        Raises:
            InputError: it is not such an array or has another size, OpenCV cannot write such a
                video, or the disk is full.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size or frame.dtype != np.uint8:
            raise InputError(
                f"{self._path}: a frame of shape {frame.shape} and type {frame.dtype}; it takes "
                "(H, W, 3) of uint8, with at least one pixel"
            )
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self._open(size)
        if size != self._size:  # which OpenCV drops without a word
            raise InputError(
                f"{self._path}: a frame of {size[0]}x{size[1]} pixels after one of "
                f"{self._size[0]}x{self._size[1]}; a video has one size"
            )
        self._writer.write(frame)
        self._num_frames += 1
        if _free_bytes(self._partial) == 0:
            raise InputError(self._disk_is_full())

    def _open(self, size: tuple[int, int]) -> None:
        self._partial = self._folder.enter_context(folder_beside(self._path)) / self._name
        code = cv2.VideoWriter_fourcc(*self._codec)  # type: ignore[attr-defined]
        writer = cv2.VideoWriter(str(self._partial), code, self._frame_rate, size)
        if not writer.isOpened():
            full = _free_bytes(self._partial) == 0
            self._folder.close()
            if full:
                raise InputError(self._disk_is_full())
            fix = "" if self._codec == "MJPG" else ": try .avi"
            raise InputError(f"OpenCV cannot write {self._path} of {size[0]}x{size[1]} pixels{fix}")
        self._writer, self._size = writer, size

    def _disk_is_full(self) -> str:
        return f"{self._path} cannot be written: the disk is full; free some space, or use another"

    def _is_whole(self) -> bool:
        """Whether all frames can be decoded at their size: OpenCV tells of no failed write."""
        capture = cv2.VideoCapture(str(self._partial))
        try:
            read, frame = capture.read()
            if not read:
                return False
            # Odd sides lose a pixel.
            if max(self._size[0] - frame.shape[1], self._size[1] - frame.shape[0]) > 1:
                return False
            found = 1
            while found <= self._num_frames and capture.grab():
                found += 1
            return found == self._num_frames
        finally:
            capture.release()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        with self._folder:
            self._writer.release()
            free = _free_bytes(self._partial)
            is_whole = free != 0 and self._is_whole()
            ended_in_order = error is None or issubclass(error, KeyboardInterrupt)
            if is_whole and (ended_in_order or not self._path.exists()):
                os.replace(self._partial, self._path)
            elif error is None:
                if free is not None and free < _FULL:
                    raise InputError(self._disk_is_full())
                raise InputError(
                    f"OpenCV did not write all {self._num_frames} frames of {self._path}, of "
                    f"{self._size[0]}x{self._size[1]} pixels: the disk or a quota may be full, or "
                    "the frames too large for the format"
                )


def _free_bytes(path: Path) -> int | None:
    """Of the disk that holds a file; None where the system does not say."""
    if not hasattr(os, "statvfs"):
        return None
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return None
    return found.f_frsize * (found.f_bavail if os.geteuid() else found.f_bfree)
