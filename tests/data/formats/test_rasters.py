"""What all formats of label images share: which one it is, the images' names, hostile files."""

import os
import struct
import zlib

import numpy as np
import pytest

from tests.data.formats import rasters
from topformer_d2.data.formats import raster_files
from topformer_d2.errors import InputError


@pytest.mark.parametrize("name", rasters.SAMPLES)
def test_each_layout_is_of_one_format(name, tmp_path):
    expected, build = rasters.SAMPLES[name]
    labels, images = build(tmp_path)
    assert rasters.detected(labels, images) == ([] if expected is None else [expected])
    if expected is None:
        return
    labelling = rasters.read(expected, labels, images)
    assert not labelling.problems
    listed = {os.path.splitext(each)[0] for each in raster_files.list_files(str(images))}
    assert len(labelling.images) in (2, 3)
    assert {each.image for each in labelling.images} <= listed
    assert sorted(rasters.counts(expected, labelling).values()) in ([80, 264, 424], [264, 504])


def test_what_does_not_exist_is_of_no_format_and_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_text("x")
    for name in ("empty", "file.png", "gone"):
        assert rasters.detected(tmp_path / name, tmp_path / "images") == []
        for each in rasters.FORMATS:
            with pytest.raises(InputError, match=name):
                rasters.read(each, tmp_path / name, tmp_path / "images")


@pytest.mark.parametrize(
    ("label", "image", "expected"),
    [
        ("a.png", "a.jpg", "a"),
        ("a_mask.png", "a.jpg", "a"),
        ("a_L.png", "a.png", "a"),
        ("a_Segmentation.png", "a.png", "a"),
        ("1_mask.png", "1_sat.jpg", "1_sat"),
        ("area_label.tif", "area_RGB.tif", "area_RGB"),
        ("a_mask.png", "a_mask.png", "a_mask"),
        ("train/x/a-gt.png", "train/x/a.png", "train/x/a"),
        ("b_mask.png", "a.png", "b_mask"),
    ],
)
def test_suffixes_of_labels(label, image, expected, tmp_path):
    rasters.save(rasters.label(), tmp_path / "labels" / label)
    rasters.photos(tmp_path / "images", [os.path.splitext(image)[0]], image.rpartition(".")[2])
    found = raster_files.find_labels(str(tmp_path / "labels"), str(tmp_path / "images"))
    assert [found.image_of(name) for name in found.masks] == [expected]


def test_folders_that_link_to_themselves_and_hidden_files_are_left_out(tmp_path):
    labels, images = rasters.SAMPLES["grey"][1](tmp_path)
    (labels / "loop").symlink_to(labels)
    (labels / "._im0.png").write_text("x")
    assert raster_files.list_files(str(labels)) == ["im0.png", "im1.png", "im2.png"]
    assert rasters.detected(labels, images) == ["index_masks"]


def test_links_and_pipes_that_are_no_files_are_refused_when_read(tmp_path):
    labels, images = rasters.SAMPLES["grey"][1](tmp_path)
    (labels / "im3.png").symlink_to(labels / "im3.png")
    os.mkfifo(labels / "im4.png")
    (labels / "im5.png").symlink_to(labels / "gone.png")
    labelling = rasters.read("index_masks", labels, images)
    assert len(labelling.images) == 6
    # Half of the files tell what they are.
    assert rasters.detected(labels, images) == ["index_masks"]
    (labels / "im2.png").write_bytes(b"")
    assert rasters.detected(labels, images) == []
    for each in labelling.images[3:]:
        with pytest.raises(InputError, match=f"{each.image}.png"):
            rasters.FORMATS["index_masks"].decode(each.files, [])


def test_images_within_the_folder_of_labels_are_none_of_them(tmp_path):
    labels, _ = rasters.SAMPLES["grey"][1](tmp_path)
    images = rasters.photos(labels / "images", extension="png")
    found = raster_files.find_labels(str(labels), str(images))
    assert found.masks == ("im0.png", "im1.png", "im2.png") and len(found.stems) == 3


@pytest.mark.parametrize("name", ["index_masks", "colour_masks"])
def test_jpegs_and_two_labels_of_an_image_are_problems(name, tmp_path):
    labels, images = rasters.SAMPLES["grey"][1](tmp_path)
    rasters.photos(labels, ["im0", "im3", "photos/im4"])
    rasters.save(rasters.label(), labels / "im1_mask.png")
    labelling = rasters.read(name, labels, images)
    assert [each.image for each in labelling.images] == ["im0", "im1", "im2"]
    found = [(each.kind, os.path.basename(each.file)) for each in labelling.problems]
    assert found == [("image listed twice", "im1_mask.png"), ("JPEG label", "im3.jpg")]
    assert all(each.file in each.message for each in labelling.problems)


@pytest.mark.parametrize("name", rasters.FORMATS)
def test_a_folder_of_jpegs_is_refused(name, tmp_path):
    with pytest.raises(InputError, match="labels"):
        rasters.read(name, rasters.photos(tmp_path / "labels"), tmp_path / "images")


def _chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _huge():
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    return start + _chunk(b"IDAT", zlib.compress(b"\0" * 99)) + _chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["grey", "palette", "16 bit", "TIFF", "BMP", "GIF", "CamVid"])
def test_damaged_files_are_refused_by_name(name, tmp_path):
    form, build = rasters.SAMPLES[name]
    labels, images = build(tmp_path)
    labelling = rasters.read(form, labels, images)
    file = labelling.images[0].files[0]
    with open(file, "rb") as f:
        whole = f.read()
    rng = np.random.default_rng(0)
    refused = 0
    damaged = [b"", b"\0" * 50, _huge(), *(whole[: len(whole) * i // 12] for i in range(1, 12))]
    for _ in range(40):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            content[place] = rng.integers(256)
        damaged.append(bytes(content))
    for content in damaged:
        with open(file, "wb") as f:
            f.write(content)
        assert isinstance(rasters.detected(labels, images), list)
        rasters.read(form, labels, images)
        for each in rasters.FORMATS.values():
            names = ["background", "labels"] if each.name == "binary_masks" else labelling.names
            try:
                pixels = each.decode((file,), names)
            except InputError as e:
                refused += 1
                assert file in str(e)
            else:
                assert pixels.ndim == 2 and 0 <= pixels.min() <= pixels.max() < 2**24
    assert refused >= 4 * 9
