"""Frames into a video file and out of it."""

import os
import re
import shutil
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest

from topformer_d2.errors import InputError, Terminated
from topformer_d2.inference import video
from topformer_d2.inference.containers import is_cut
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
    for frames, stop in ((2, KeyboardInterrupt), (4, Terminated)):
        with pytest.raises(stop):
            write(path, frames, stop())
        assert count(path) == frames
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


def test_frames_that_the_header_alone_has_are_not_written(tmp_path, monkeypatch):
    """A container's header says how many frames were meant to be there."""
    path = tmp_path / "x.avi"
    write(path, 3)
    before = path.read_bytes()

    class Losing:
        def __init__(self, name, *args):
            self.name, self.inner = name, real(name, *args)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def release(self):
            self.inner.release()
            os.truncate(self.name, os.path.getsize(self.name) // 2)

    real = cv2.VideoWriter
    monkeypatch.setattr(cv2, "VideoWriter", Losing)
    with pytest.raises(InputError, match=r"did not write all 20 frames of .*x\.avi"):
        write(path, 20)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.avi"]


def test_a_disk_that_fills_up_ends_a_video_at_once(tmp_path, monkeypatch):
    path = tmp_path / "x.mp4"
    write(path, 3)
    monkeypatch.setattr(video, "_free_bytes", lambda path: 0)
    with (
        pytest.raises(InputError, match=r"x\.mp4 cannot be written: the disk is full"),
        VideoWriter(str(path), 25) as writer,
    ):
        writer.write(frame())
    assert count(path) == 3 and os.listdir(tmp_path) == ["x.mp4"]


@pytest.mark.parametrize("name", ["x.mp4", "x.avi"])
def test_a_disk_of_its_own_that_is_full(tmp_path, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        write(disk / name, 3)
        with pytest.raises(InputError, match=rf"{name} cannot be written: the disk is full"):
            write(disk / name, 200)
        assert count(disk / name) == 3 and os.listdir(disk) == [name]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def moving(path, codec, num_frames=60):
    """A video of an object that moves, in any container."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (96, 64))
    if not writer.isOpened():
        pytest.skip(f"OpenCV has no {codec} for {path.suffix} here")
    base = cv2.resize(frame(8, 12), (96, 64))
    for i in range(num_frames):
        writer.write(np.roll(base, 3 * i, axis=1))
    writer.release()
    return path


CONTAINERS = [
    *(("x.mp4", "mp4v"), ("x.mov", "mp4v"), ("x.avi", "MJPG"), ("x.avi", "XVID")),
    *(("x.mkv", "mp4v"), ("x.mkv", "MJPG"), ("x.webm", "VP80"), ("x.wmv", "WMV2")),
    *(("x.flv", "FLV1"), ("x.ts", "mpg2")),
]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_a_damaged_video_is_read_on_and_told(tmp_path, name, codec):
    path = moving(tmp_path / name, codec)
    whole = VideoReader(path)
    assert len([*whole]) == 60 and whole.problem is None
    content = bytearray(path.read_bytes())
    third, sixth = len(content) // 3, len(content) // 6
    content[third : third + sixth] = bytes(sixth)
    path.write_bytes(content)
    damaged = VideoReader(path)
    read = len([*damaged])
    assert 10 < read < 60
    assert f"{name} is damaged: {60 - read} of 60 frames could not be read" in damaged.problem


@pytest.mark.parametrize("percent", [25, 50, 75, 95])
@pytest.mark.parametrize(
    ("name", "codec"),
    [*CONTAINERS, ("x.mpg", "PIM1"), ("x.vob", "mpg2"), ("x.m2ts", "mpg2"), ("x.asf", "WMV1")],
)
def test_a_cut_video_is_told(tmp_path, name, codec, percent):
    path = moving(tmp_path / name, codec)
    whole = VideoReader(path)
    assert len([*whole]) == 60 and whole.problem is None
    if name in ("x.mp4", "x.mov"):
        at_front(path)
    size = path.stat().st_size * percent // 100
    os.truncate(path, size | 1)  # within a packet, whose bytes are even in number
    cut = VideoReader(path)
    read = len([*cut])
    assert 0 < read <= 60 and f"is cut: it ends after {read} frames" in cut.problem
    assert percent == 95 or read < 55


@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.flv", "FLV1"), ("x.ts", "mpg2"), ("x.mpg", "PIM1"), ("x.wmv", "WMV2"), ("x.avi", "MJPG")],
)
def test_bytes_after_a_whole_video_are_no_cut(tmp_path, name, codec):
    path = moving(tmp_path / name, codec, 30)
    for size in (3, 100, 188 * 4):
        with open(path, "ab") as f:
            f.write(bytes(size))
        assert not is_cut(path)


def test_a_video_of_varying_frame_rate_is_whole(tmp_path):
    path = moving(tmp_path / "x.flv", "FLV1")
    content, place, time = bytearray(path.read_bytes()), 13, 0
    while place + 15 < len(content):
        if content[place] == 9:
            content[place + 4 : place + 7] = time.to_bytes(3, "big")
            time += 10 + 37 * time % 190
        place += 15 + int.from_bytes(content[place + 1 : place + 4], "big")
    struct.pack_into(">d", content, content.find(b"duration") + 9, time / 1000)
    path.write_bytes(content)
    reader = VideoReader(path)
    assert len([*reader]) == 60 and reader.num_frames != 60 and reader.problem is None


def at_front(path):
    """Put an MP4 file's description before the frames, as files for the web have it."""
    content = path.read_bytes()
    at, boxes = 0, {}
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        boxes[content[at + 4 : at + 8]] = content[at : at + size]
        at += size
    description = bytearray(boxes[b"moov"])
    place = description.find(b"stco")
    (chunks,) = struct.unpack_from(">I", description, place + 8)
    for i in range(chunks):
        at = place + 12 + 4 * i
        (offset,) = struct.unpack_from(">I", description, at)
        struct.pack_into(">I", description, at, offset + len(description))
    others = b"".join(box for name, box in boxes.items() if name not in (b"ftyp", b"moov"))
    path.write_bytes(boxes[b"ftyp"] + description + others)


def test_a_trimmed_video_is_whole(tmp_path):
    """An edit list of an MP4 file leaves frames out that the file counts."""
    path = moving(tmp_path / "x.mp4", "mp4v")
    content = bytearray(path.read_bytes())
    place = content.find(b"mdhd")
    (timescale,) = struct.unpack_from(">I", content, place + 16)
    struct.pack_into(">Ii", content, content.find(b"elst") + 12, 1600, timescale * 8 // 10)
    path.write_bytes(content)
    trimmed = VideoReader(path)
    assert (len([*trimmed]), trimmed.num_frames, trimmed.problem) == (40, 60, None)


def test_no_pipe_is_read(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    with pytest.raises(InputError, match=r"x\.mp4 is a pipe"):
        VideoReader(tmp_path / "x.mp4")


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
    [("x.wmv", True), ("x.GIF", False), ("x.TIFF", False), ("x.jpg", False), ("x", False)],
)
def test_a_file_without_an_images_extension_is_a_video(tmp_path, name, expected):
    assert not is_video(str(tmp_path / name))
    (tmp_path / name).touch()
    assert is_video(str(tmp_path / name)) == expected and not is_video(str(tmp_path))


@pytest.mark.parametrize("source", [-1, True, None, 0.5])
def test_what_is_neither_a_file_nor_a_camera(source):
    with pytest.raises(InputError, match=rf"{source!r} is not a video"):
        VideoReader(source)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((64, 64), "uint8"), ((64, 64, 4), "uint8"), ((64, 64, 3), "float32"), ((0, 0, 3), "uint8")],
)
def test_frames_of_other_shapes_and_types_are_named(tmp_path, shape, dtype):
    message = rf"x\.avi: a frame of shape {re.escape(str(shape))} and type {dtype}"
    with pytest.raises(InputError, match=message), VideoWriter(tmp_path / "x.avi", 25) as writer:
        writer.write(np.zeros(shape, dtype))
    assert not [*tmp_path.iterdir()]
