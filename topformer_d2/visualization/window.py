"""A window that shows frames, where this OpenCV and this machine have one."""

from __future__ import annotations

import contextlib
import os
import sys

import cv2
import numpy as np

_ENDING_KEYS = (27, ord("q"))  # Esc


class Window(contextlib.AbstractContextManager):
    """Shows frames (H, W, 3) uint8 BGR until Esc or q is pressed or it is closed."""

    def __init__(self, title: str):
        """
        Args:
            title: of the window.

        Raises:
            OSError: there is no display, or OpenCV was built without windows.
        """
        # OpenCV's Qt ends the process where there is none, and its wheels have no Wayland.
        if sys.platform == "linux" and not os.environ.get("DISPLAY"):
            raise OSError("this machine has no display")
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as e:
            raise OSError("OpenCV has no windows, as opencv-python-headless") from e
        self._title = title
        self._tells_closing: bool | None = None  # some of OpenCV's backends do not

    def show(self, frame: np.ndarray) -> bool:
        """Show a frame; False where the user has ended it."""
        cv2.imshow(self._title, frame)
        if cv2.waitKey(1) & 0xFF in _ENDING_KEYS:
            return False
        is_open = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        if self._tells_closing is None:
            self._tells_closing = is_open
        return is_open or not self._tells_closing

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(cv2.error):
            cv2.destroyWindow(self._title)
