"""Which files are data, and reading and writing images."""

import os
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from topformer_d2.data import images
from topformer_d2.data.image_files import IMAGE_EXTENSIONS, list_images, looks_like_image
from topformer_d2.data.images import read_image, read_label, write_image
from topformer_d2.data.sem_seg import label_files, load_image_label_pairs
from topformer_d2.errors import InputError


def touch(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_hidden_files_are_no_data_and_extensions_have_any_case(tmp_path):
    folder = touch(tmp_path / "images", "x.JPG", "y-1.jpg", "y.jpeg", "._x.jpg", ".y.jpg.partial")
    labels = touch(tmp_path / "labels", "x.PNG", "y-1.png", "y.png", "._x.png", "._x.PNG", "x.txt")
    assert [Path(p).name for p in list_images(folder)] == ["x.JPG", "y-1.jpg", "y.jpeg"]
    assert {stem: Path(p).name for stem, p in label_files(labels).items()} == {
        "x": "x.PNG",
        "y": "y.png",
        "y-1": "y-1.png",
    }
    records = load_image_label_pairs(folder, labels)
    assert [Path(r["file_name"]).name for r in records] == ["x.JPG", "y.jpeg", "y-1.jpg"]
    with pytest.raises(InputError, match="holds no label PNG"):
        label_files(touch(tmp_path / "hidden", "._x.png"))
    touch(tmp_path / "labels", "x.png")
    with pytest.raises(InputError, match=r"x\.PNG and x\.png share a stem"):
        label_files(labels)


def test_list_images(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    names = [os.path.basename(path) for path in list_images(str(tmp_path))]
    assert names == ["a.JPG", "b.png"]
    assert list_images(str(tmp_path / "*.png")) == [str(tmp_path / "b.png")]
    glob = str(tmp_path / "*.gif")
    for name, words in (("", glob), ("images", f"`images` {glob}")):
        with pytest.raises(InputError) as error:
            list_images(glob, name)
        assert str(error.value).startswith(f"{words}: no image there")


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(str(tmp_path / "turned.jpg")).shape == (30, 20, 3)


def test_write_image_refuses_what_it_would_write_wrong(tmp_path):
    image = np.zeros((2, 2, 3), np.uint8)
    for name in ("x", "x.foo"):
        with pytest.raises(InputError, match=r"ends in \.jpg"):
            write_image(str(tmp_path / name), image)
    for name, dtype in (("x.png", np.int32), ("x.png", np.float32), ("x.jpg", np.uint16)):
        with pytest.raises(InputError, match=rf"{name}: an image of {np.dtype(dtype)} is not"):
            write_image(str(tmp_path / name), image.astype(dtype))
    with pytest.raises(InputError, match=r"x\.jpg: 65501x2 pixels cannot be written as \.jpg"):
        write_image(str(tmp_path / "x.jpg"), np.zeros((2, 65501, 3), np.uint8))
    assert os.listdir(tmp_path) == []
    write_image(str(tmp_path / "new" / "x.PNG"), np.full((2, 2), 3000, np.uint16))
    assert cv2.imread(str(tmp_path / "new" / "x.PNG"), -1).tolist() == [[3000] * 2] * 2


@pytest.mark.parametrize(("mode", "name"), [("I;16", "x.png"), ("I", "x.tif"), ("F", "x.tif")])
def test_deep_grey_images_are_refused(tmp_path, mode, name):
    path = str(tmp_path / name)
    Image.new(mode, (4, 3), 3000).save(path)
    with pytest.raises(InputError, match=rf"{name} has mode '{mode}', grey with more than 8 bits"):
        read_image(path)


def claim_size(path: Path, width: int, height: int) -> str:
    """A PNG whose header claims a size that it does not hold."""
    Image.new("L", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return str(path)


def test_a_claimed_size_is_refused_by_the_header(tmp_path):
    huge = claim_size(tmp_path / "huge.png", 40_000, 30_000)
    before, limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Image.MAX_IMAGE_PIXELS
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=r"huge\.png has 40000x30000 pixels.* 11\.2 GB"):
            read(huge)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB
    small = str(tmp_path / "small.png")
    Image.new("RGB", (5, 5)).save(small)
    with pytest.raises(InputError, match=r"5x5 pixels, more than the 24 of `max_pixels`"):
        read_image(small, max_pixels=24)
    assert read_image(small, max_pixels=25).shape == (5, 5, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(170_000_000, 1), (1, images.MAX_SIDE + 1)])
def test_a_thin_image_is_refused_by_its_side(tmp_path, size):
    path = claim_size(tmp_path / "thin.png", *size)
    said = f"{size[0]}x{size[1]} pixels, and a side of an image may have 16777216"
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=rf"thin\.png has {said}"):
            read(path)
    with pytest.raises(ValueError, match=said):
        images.decode_image(Path(path).read_bytes())


def test_a_larger_image_is_read_where_it_is_allowed(tmp_path, monkeypatch):
    path = str(tmp_path / "x.jpg")
    Image.new("RGB", (50, 40), "red").save(path)
    expected = read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # as if it had more than Pillow takes
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("read", [read_image, read_label, list_images])
def test_what_is_not_a_file_is_never_read(tmp_path, read):
    pipe, loop, link = (str(tmp_path / name) for name in ("pipe.png", "loop.png", "zero.png"))
    os.mkfifo(pipe)
    os.symlink(loop, loop)
    os.symlink("/dev/zero", link)
    for path, word in (
        (pipe, "a pipe"),
        (loop, "symbolic links"),
        (link, "device"),
        ("/dev/zero", "a device"),
    ):
        with pytest.raises(InputError, match=rf"{os.path.basename(path)}.*{word}"):
            read(path)
    assert len(list_images(tmp_path)) == 3  # each is told when it is read


def test_a_folder_tells_what_it_leaves_out(tmp_path, caplog):
    readable = ["a.JFIF", "b.gif", "c.ppm", "d.pgm", "e.JPG", "f.webp", "g.pnm"]
    folder = touch(tmp_path / "x", *readable, "notes.txt", "z.heic", ".hidden", "\x1b[2J.doc")
    (tmp_path / "x" / "folder.png").mkdir()
    assert [Path(p).name for p in list_images(folder)] == readable
    assert "3 of 10 files" in caplog.text and "z.heic (needs pillow-heif)" in caplog.text
    assert "notes.txt" in caplog.text and "hidden" not in caplog.text
    assert "\x1b" not in caplog.text and "\\x1b[2J.doc" in caplog.text
    with pytest.raises(InputError, match=r"no image there.*1 of 1 files.*a\.heic \(needs"):
        list_images(touch(tmp_path / "y", "a.heic"))
    for url in ("rtsp://host/stream", "https://host/a.jpg"):
        with pytest.raises(InputError, match=r"`input` .* streams and URLs are not read"):
            list_images(url, "input")


def test_every_extension_that_is_listed_is_read(tmp_path, caplog):
    for extension in (".gif", ".ppm", ".pgm", ".jfif", ".tga", *_optional()):
        path = tmp_path / f"x{extension}"
        Image.new("L", (6, 4), 90).save(path)
        assert extension in IMAGE_EXTENSIONS
        assert abs(int(read_image(path)[0, 0, 0]) - 90) < 4
        assert looks_like_image(path.rename(tmp_path / "x.unknown"))
    frames = [Image.new("L", (6, 4), shade) for shade in (10, 200)]
    for name in ("two.tif", "two.webp", "two.png"):
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert read_image(path).max() < 14 and name in caplog.text


def _optional() -> list[str]:
    found = {"jpg_2000": ".jp2", "avif": ".avif", "webp": ".webp"}
    return [extension for name, extension in found.items() if features.check(name)]


def test_a_drawing_for_ghostscript_is_not_run(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(InputError, match=r"x\.jpg cannot be read: it is not an image of a format"):
        read_image(tmp_path / "x.jpg")


def test_damaged_images_raise_one_error_that_names_them(tmp_path):
    random = np.random.default_rng(0)
    for extension in (".png", ".jpg", ".gif", ".tif", ".bmp", ".ppm", ".tga", *_optional()):
        path = tmp_path / f"x{extension}"
        pixels = random.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(12):
            damaged = whole[: random.integers(1, len(whole) + 1)].copy()
            places = random.integers(0, min(60, len(damaged)), 3)
            damaged[places] = random.integers(0, 255, 3)
            path.write_bytes(damaged)
            for read in (read_image, read_label):
                try:
                    assert read(path).dtype == np.uint8
                except InputError as e:
                    assert str(path) in str(e)


def test_memory_that_is_missing_is_told_with_the_size(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.new("RGB", (7, 5)).save(path)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(images, "convert_PIL_to_numpy", fail)
    with pytest.raises(InputError, match=r"x\.png cannot be read: not enough memory \(7x5 pixels"):
        read_image(path)
