"""A camera, of which always the newest frame is used."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from ..errors import InputError

# Seconds without a frame after which a camera is taken to be gone. Some take several to begin.
_PATIENCE = 10.0
_DEFAULT_RATE = 25.0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what OpenCV prints of each way in which a camera cannot be opened."""
    logging: Any = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


class Camera(contextlib.AbstractContextManager):
    """Iterates over the frames of a camera, (H, W, 3) uint8 BGR, without those in between.

    A thread reads all frames, so that none waits in the driver's queue. What is given is the frame
    that came last; a frame is given once. The camera is let go at the end of the `with` block.

    Attributes:
        frame_rate: frames a second, as the camera says; 25 where it does not.
        num_frames: that came.
        problem: when the frames have ended, why; None before that.
    """

    def __init__(self, number: int):
        """
        Args:
            number: of the camera, 0 or more.

        Raises:
            InputError: it cannot be opened.
        """
        self.number = number
        with _quiet():
            capture = cv2.VideoCapture(number)
        if not capture.isOpened():
            capture.release()
            raise InputError(
                f"camera {number} cannot be opened: is it connected, and used by no other program? "
                "The first one is camera:0"
            )
        # Not a number, or none at all, of some drivers.
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = rate if 1 <= rate <= 1000 else _DEFAULT_RATE
        self.num_frames = 0
        self.problem: str | None = None
        self._newest: np.ndarray | None = None
        self._has_ended = False
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        # A daemon: a driver may wait for a frame for ever.
        self._thread = threading.Thread(
            target=self._read, args=(capture,), name="camera", daemon=True
        )
        self._thread.start()

    def _read(self, capture: cv2.VideoCapture) -> None:
        try:
            while not self._stopped.is_set():
                read, frame = capture.read()
                if not read or frame is None:
                    return
                with self._changed:
                    self._newest = frame
                    self.num_frames += 1
                    self._changed.notify()
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify()
            capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame that is the newest when it is asked for; it ends when none comes any more."""
        while (frame := self._wait()) is not None:
            yield frame
        name = f"camera {self.number}"
        if not self.num_frames:
            self.problem = f"{name} gave no frame: is it used by another program, or covered?"
        elif self._has_ended:
            self.problem = f"{name} gives no frames any more: it was unplugged, or its driver ended"
        else:
            self.problem = f"{name} gave no frame for {_PATIENCE:g} seconds"

    def _wait(self) -> np.ndarray | None:
        end = time.monotonic() + _PATIENCE
        with self._changed:
            # In short steps, because Ctrl-C does not end a wait on every system.
            while self._newest is None and not self._has_ended and time.monotonic() < end:
                self._changed.wait(0.2)
            frame, self._newest = self._newest, None
            return frame

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(timeout=1)
