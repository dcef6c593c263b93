"""Frames of a camera, of which there is none here."""

import threading
import time

import cv2
import numpy as np
import pytest

from topformer_d2.errors import InputError
from topformer_d2.inference import camera as module
from topformer_d2.inference.camera import Camera


class FakeCapture:
    """cv2.VideoCapture of a camera that gives `count` frames of rising brightness, then ends."""

    def __init__(self, number, *, count=5, pause=0.0, rate=30.0, opened=True):
        self.number, self.count, self.pause, self.rate = number, count, pause, rate
        self.opened, self.released, self.done = opened, threading.Event(), 0

    def isOpened(self):
        return self.opened

    def get(self, key):
        return self.rate if key == cv2.CAP_PROP_FPS else 0.0

    def read(self):
        time.sleep(self.pause)
        if self.done == self.count:
            return False, None
        self.done += 1
        return True, np.full((48, 64, 3), self.done, np.uint8)

    def release(self):
        self.released.set()


@pytest.fixture
def capture(monkeypatch):
    """Sets what cv2.VideoCapture gives next."""
    made = []

    def use(**keys):
        def make(number):
            made.append(FakeCapture(number, **keys))
            return made[-1]

        monkeypatch.setattr(cv2, "VideoCapture", make)
        return made

    return use


def test_the_newest_frame_is_given_and_each_once(capture):
    made = capture(count=40, pause=0.005)
    seen = []
    with Camera(1) as camera:
        for frame in camera:
            seen.append(int(frame[0, 0, 0]))
            time.sleep(0.03)
    assert made[0].number == 1 and made[0].released.wait(60)
    assert seen == sorted(set(seen)) and seen[-1] == 40
    assert len(seen) < 30 and camera.num_frames == 40
    assert "unplugged" in camera.problem and "camera 1" in camera.problem


def test_a_camera_that_is_not_there(capture):
    made = capture(opened=False)
    with pytest.raises(InputError, match="camera 7 cannot be opened"):
        Camera(7)
    assert made[0].released.is_set()


def test_a_camera_without_a_frame(capture, monkeypatch):
    capture(count=0)
    with Camera(0) as camera:
        assert [*camera] == [] and "gave no frame:" in camera.problem
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    capture(pause=0.6)
    with Camera(0) as camera:
        assert [*camera] == [] and "gave no frame" in camera.problem


@pytest.mark.parametrize(("said", "used"), [(0.0, 25.0), (float("nan"), 25.0), (15.0, 15.0)])
def test_the_frame_rate_of_a_driver(capture, said, used):
    capture(rate=said)
    with Camera(0) as camera:
        assert camera.frame_rate == used


def test_a_camera_that_is_left_early_is_let_go(capture):
    made = capture(count=10_000, pause=0.001)
    with Camera(0) as camera:
        next(iter(camera))
        assert not made[0].released.is_set()
    assert made[0].released.wait(60) and camera.problem is None
