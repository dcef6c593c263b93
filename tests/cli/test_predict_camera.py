"""`topformer predict --input camera`."""

import os
import signal

import cv2
import numpy as np
import pytest

from tests.helpers import photo, save_untrained, topformer
from tests.inference.test_camera import capture  # noqa: F401
from topformer_d2 import get_config
from topformer_d2.cli import predict as verb
from topformer_d2.inference import Predictor
from topformer_d2.inference.video import VideoReader
from topformer_d2.visualization import camera as drawing
from topformer_d2.visualization import window

CONFIG = "seg_topformer_t_synthetic"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    weights = save_untrained(get_config(CONFIG), tmp_path_factory.mktemp("m") / "m.safetensors")
    return ["--config-file", f"configs/{CONFIG}.yaml", "--weights", weights]


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    def fail(title, flags):
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", fail)


def frames(path):
    return [*VideoReader(str(path))]


def files_are_read(monkeypatch):
    """Cameras are the fake's, and files are OpenCV's."""
    fake = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda source: (fake if isinstance(source, int) else _REAL)(source)
    )


_REAL = cv2.VideoCapture


def test_what_a_camera_saw_is_kept_when_it_ends(model, capture, tmp_path, monkeypatch):  # noqa: F811
    made = capture(count=6, pause=0.05)
    files_are_read(monkeypatch)
    out = tmp_path / "o.avi"
    result = topformer("predict", *model, "--input", "camera:2", "--output", out)
    assert result.returncode == 1 and "camera 2 gives no frames any more" in result.stderr
    assert "frames done (" in result.stdout and "a second), " in result.stdout
    assert made[0].number == 2 and frames(out)[0].shape == (48, 64, 3)


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 0), ("SIGTERM", 143)])
def test_ctrl_c_ends_a_recording(model, capture, tmp_path, monkeypatch, name, status):  # noqa: F811
    capture(count=10_000, pause=0.01)
    files_are_read(monkeypatch)
    predict, calls = Predictor.__call__, []

    def stop_at_third(self, images, **keys):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), getattr(signal, name))
        return predict(self, images, **keys)

    monkeypatch.setattr(Predictor, "__call__", stop_at_third)
    out = tmp_path / "o.mp4"
    result = topformer("predict", *model, "--input", "camera", "--output", out)
    assert result.returncode == status, result.stderr
    # A frame that came within the first one's time in the video is left out.
    assert len(frames(out)) >= 1 and os.listdir(tmp_path) == ["o.mp4"]
    if not status:
        assert "2 frames done (" in result.stdout


def test_without_a_window_an_output_is_named(model, capture, tmp_path):  # noqa: F811
    capture()
    result = topformer("predict", *model, "--input", "camera")
    assert result.returncode == 1 and "name --output, an .mp4 or .avi" in result.stderr
    assert result.stderr.count("\n") == 1
    result = topformer("predict", *model, "--input", "camera", "--output", tmp_path / "x.mkv")
    assert result.returncode == 1 and ".mp4 or .avi" in result.stderr


def test_a_camera_that_is_not_there(model, capture, tmp_path):  # noqa: F811
    capture(opened=False)
    result = topformer("predict", *model, "--input", "camera:9", "--output", tmp_path / "o.mp4")
    assert result.returncode == 1 and "camera 9 cannot be opened" in result.stderr
    capture(count=0)
    result = topformer("predict", *model, "--input", "camera", "--output", tmp_path / "o.mp4")
    assert result.returncode == 1 and "error: camera 0 gave no frame" in result.stderr
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("option", [["--no-overlays"], ["--save-labels", "coco"]])
def test_options_of_images_are_refused(option):
    result = topformer("predict", "--input", "camera", *option)
    assert result.returncode == 1 and f"{option[0]} is for images" in result.stderr


def test_what_is_called_camera_is_read_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [verb.camera_number(name) for name in ("camera", "camera:3", "cameras", "camera:x")] == [
        *(0, 3, None, None),
    ]
    (tmp_path / "camera").mkdir()
    photo(tmp_path / "camera" / "a.png")
    assert verb.camera_number("camera") is None
    result = topformer("predict", "--input", "camera", cwd=tmp_path)
    assert result.returncode == 2 and "--output" in result.stderr


class Shown:
    """A display with a window that is closed after some frames."""

    def __init__(self, patch, key=-1, visible=1.0):
        self.frames, self.closed = [], []
        patch.setenv("DISPLAY", ":0")
        patch.setattr(cv2, "namedWindow", lambda title, flags: None)
        patch.setattr(cv2, "imshow", lambda title, frame: self.frames.append(frame))
        patch.setattr(cv2, "waitKey", lambda delay: key if len(self.frames) == 2 else -1)
        patch.setattr(
            cv2,
            "getWindowProperty",
            lambda title, which: visible if len(self.frames) == 2 else 1.0,
        )
        patch.setattr(cv2, "destroyWindow", self.closed.append)


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (27, 1.0), (-1, 0.0)])
def test_a_window_is_closed_by_its_user(model, capture, monkeypatch, key, visible):  # noqa: F811
    capture(count=10_000, pause=0.001)
    shown = Shown(monkeypatch, key, visible)
    result = topformer("predict", *model, "--input", "camera")
    assert result.returncode == 0 and "2 frames done (" in result.stdout, result.stderr
    assert shown.frames[0].shape == (48, 64, 3) and len(shown.closed) == 1


def test_a_backend_that_does_not_tell_of_closing(monkeypatch):
    Shown(monkeypatch)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, which: -1.0)
    with window.Window("x") as shown:
        assert shown.show(np.zeros((2, 2, 3), np.uint8))


def test_no_window_is_tried_without_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: pytest.fail("it ends the process"))
    monkeypatch.setattr(window.sys, "platform", "linux")
    with pytest.raises(OSError, match="no display"):
        window.Window("x")


def test_a_recording_is_as_fast_as_what_it_shows():
    written = []

    class Writer:
        def write(self, frame):
            written.append(int(frame[0, 0, 0]))

    recorder = drawing._Recorder(Writer(), 10)
    for value, seconds in ((1, 0.0), (2, 0.02), (3, 0.35), (4, 0.4)):
        recorder.write(np.full((2, 2, 3), value, np.uint8), seconds)
    assert written == [1, 2, 2, 3, 4]


def test_images_are_not_tracked(tmp_path):
    path = photo(tmp_path / "a.png")
    result = topformer("predict", "--input", path, "--output", tmp_path / "out", "--track")
    assert result.returncode == 1 and "--track is for videos and cameras" in result.stderr


def test_tracking_needs_boxes(model, capture, tmp_path):  # noqa: F811
    capture()
    out = tmp_path / "o.mp4"
    result = topformer("predict", *model, "--input", "camera", "--output", out, "--track")
    assert result.returncode == 1 and "error: --track is for boxes" in result.stderr
    result = topformer("predict", *model, "--input", "camera", "--output", out, "--save-json", "x")
    assert result.returncode == 1 and "this model finds no boxes" in result.stderr
