"""Frames into a video file and out of it."""

import os
import sys

import cv2
import numpy as np
import pytest

from topformer_d2.errors import InputError
from topformer_d2.inference.video import VideoReader, VideoWriter, is_video


def frame(height=64, width=96, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, count, error=None):
    with VideoWriter(str(path), 25) as writer:
        for seed in range(count):
            writer.write(frame(seed=seed))
        if error:
            raise error


def count(path):
    return len([*VideoReader(str(path))])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("name", ["x.avi", "x.mp4"])
def test_a_stopped_video_keeps_its_frames(tmp_path, name, error):
    path = tmp_path / name
    with pytest.raises(error):
        write(path, 2, error())
    assert count(path) == 2 and os.listdir(tmp_path) == [name]


def test_what_becomes_of_an_earlier_video(tmp_path):
    path = tmp_path / "x.mp4"
    write(path, 3)
    for frames, error, left in ((1, ZeroDivisionError, 3), (0, KeyboardInterrupt, 3)):
        with pytest.raises(error):
            write(path, frames, error())
        assert count(path) == left
    with pytest.raises(KeyboardInterrupt):
        write(path, 2, KeyboardInterrupt())
    assert count(path) == 2
    write(path, 1)
    assert count(path) == 1 and os.listdir(tmp_path) == ["x.mp4"]


def test_frames_have_one_size(tmp_path):
    path = str(tmp_path / "x.avi")
    with (
        pytest.raises(InputError, match=r"x\.avi: a frame of 80x64 pixels after one of 96x64"),
        VideoWriter(path, 25) as writer,
    ):
        writer.write(frame())
        writer.write(frame(width=80))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.mp4", r"cannot write .*x\.mp4 of 70000x4 pixels: try \.avi"),
        ("x.avi", r"did not write all 1 frames of .*x\.avi, of 70000x4 pixels: .* too large"),
    ],
)
def test_a_video_too_wide_for_opencv(tmp_path, name, message):
    with (
        pytest.raises(InputError, match=message),
        VideoWriter(str(tmp_path / name), 25) as writer,
    ):
        writer.write(np.zeros((4, 70000, 3), np.uint8))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits files by Linux's call")
@pytest.mark.parametrize("name", ["x.mp4", "x.avi"])
def test_a_full_disk_is_told(tmp_path, name):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match=rf"did not write all 60 frames of .*{name}"):
            write(tmp_path / name, 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_odd_sides_lose_a_pixel_at_most(tmp_path):
    for name in ("x.avi", "x.mp4"):
        path = str(tmp_path / name)
        with VideoWriter(path, 25) as writer:
            writer.write(frame(51, 77))
        ((height, width, _),) = [shown.shape for shown in VideoReader(path)]
        assert height in (50, 51) and width in (76, 77)


def test_a_reader_reads_again_and_holds_no_file_open(tmp_path, monkeypatch):
    path, captures = tmp_path / "x.avi", []
    write(path, 2)
    capture_class = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda source: captures.append(capture_class(source)) or captures[-1]
    )
    reader = VideoReader(str(path))
    assert not captures[0].isOpened()
    assert len([*reader]) == len([*reader]) == reader.num_frames == 2


def test_a_camera_is_named_as_one():
    with pytest.raises(InputError, match="camera 99 cannot be opened"):
        VideoReader(99)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x.wmv", True), ("x.GIF", True), ("x.TIFF", False), ("x.jpg", False), ("x", False)],
)
def test_a_file_without_an_images_extension_is_a_video(tmp_path, name, expected):
    assert not is_video(str(tmp_path / name))
    (tmp_path / name).touch()
    assert is_video(str(tmp_path / name)) == expected and not is_video(str(tmp_path))
