"""Which files are data, and reading and writing images."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from topformer_d2.data.images import list_images, read_image, write_image
from topformer_d2.data.sem_seg import label_files, load_image_label_pairs
from topformer_d2.errors import InputError


def touch(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_hidden_files_are_no_data_and_extensions_have_any_case(tmp_path):
    images = touch(tmp_path / "images", "x.JPG", "y-1.jpg", "y.jpeg", "._x.jpg", ".y.jpg.partial")
    labels = touch(tmp_path / "labels", "x.PNG", "y-1.png", "y.png", "._x.png", "._x.PNG", "x.txt")
    assert [Path(p).name for p in list_images(images)] == ["x.JPG", "y-1.jpg", "y.jpeg"]
    assert {stem: Path(p).name for stem, p in label_files(labels).items()} == {
        "x": "x.PNG",
        "y": "y.png",
        "y-1": "y-1.png",
    }
    records = load_image_label_pairs(images, labels)
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
    for option, words in (("", glob), ("--images", f"--images {glob}")):
        with pytest.raises(InputError) as error:
            list_images(glob, option)
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


def test_a_huge_image_names_the_limit(tmp_path, monkeypatch):
    path = str(tmp_path / "x.png")
    Image.new("RGB", (5, 5)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"x\.png cannot .* raise PIL\.Image\.MAX_IMAGE_PIXELS"):
        read_image(path)
