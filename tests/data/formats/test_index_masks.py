"""Label images of indices: bit depths, and where their names come from."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data.formats import rasters
from topformer_d2.errors import InputError


def few_bits(path, bits, palette=None):
    """A PNG of 2 or 4 bits a pixel, as zopfli and optipng write it."""
    values = rasters.label()
    shifts = np.arange(8 - bits, -1, -bits)
    packed = (values.reshape(24, -1, 8 // bits).astype(int) << shifts).sum(-1).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 32, 24, bits, 3 if palette else 0, 0, 0, 0))]
    chunks += [(b"PLTE", palette)] if palette else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(content)


def decode(path):
    pixels = rasters.FORMATS["index_masks"].decode([str(path)], [])
    return dict(
        zip(*(each.tolist() for each in np.unique(pixels, return_counts=True)), strict=True)
    )


@pytest.mark.parametrize("palette", [None, rasters.COLORS.tobytes()])
@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_the_stored_numbers(tmp_path, bits, palette):
    few_bits(tmp_path / "a.png", bits, palette)
    assert decode(tmp_path / "a.png") == rasters.COUNTS


@pytest.mark.parametrize(
    ("name", "make", "values"),
    [
        ("a.png", lambda v: v == 2, (0, 0, 1)),
        ("a.tif", lambda v: v == 2, (0, 0, 1)),
        ("a.png", lambda v: v.astype(np.uint16) * 20000, (0, 20000, 40000)),
        ("a.tif", lambda v: v.astype(np.uint16) * 20000, (0, 20000, 40000)),
        ("a.tif", lambda v: v.astype(np.int32) * 70000, (0, 70000, 140000)),
        ("a.tif", lambda v: v.astype(np.float32) * 3, (0, 3, 6)),
        ("a.png", lambda v: Image.fromarray(v).convert("LA"), (0, 1, 2)),
        ("a.png", lambda v: np.stack([v, v, v, 255 - v], -1), (0, 1, 2)),
        ("a.bmp", lambda v: v * np.uint8(100), (0, 100, 200)),
        ("a.bmp", rasters.palette_image, (0, 1, 2)),
        ("a.gif", rasters.palette_image, (0, 1, 2)),
    ],
)
def test_values_of_each_kind_of_file(tmp_path, name, make, values):
    rasters.save(make(rasters.label()), tmp_path / name)
    expected = {}
    for value, count in zip(values, rasters.COUNTS.values(), strict=True):
        expected[value] = expected.get(value, 0) + count
    assert decode(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("a.png", lambda v: rasters.COLORS[v], r"\(250, 50, 83\) at x 0, y 0.*colour_masks"),
        ("a.tif", lambda v: v.astype(np.int32) - 1, "from -1 to 1"),
        ("a.tif", lambda v: v.astype(np.int32) << 23, "16777216"),
        ("a.tif", lambda v: v / np.float32(3), "not whole"),
        ("a.tif", lambda v: np.where(v, np.float32("nan"), np.float32(0)), "not whole"),
        ("a.tif", lambda v: Image.fromarray(rasters.COLORS[v]).convert("CMYK"), "CMYK"),
    ],
)
def test_what_is_no_number_of_a_class_is_refused(tmp_path, name, make, why):
    rasters.save(make(rasters.label()), tmp_path / name)
    with pytest.raises(InputError, match=why) as e:
        decode(tmp_path / name)
    assert name in str(e.value)


@pytest.mark.parametrize(
    ("extension", "options"), [("jpg", {}), ("tif", {"compression": "jpeg"}), ("webp", {})]
)
def test_lossy_files_are_refused_whatever_their_names(tmp_path, extension, options):
    rasters.save(rasters.label(), tmp_path / f"a.{extension}", **options)
    (tmp_path / f"a.{extension}").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png.* PNG"):
        decode(tmp_path / "a.png")


def test_names_of_roboflow(tmp_path):
    labels, images = rasters.roboflow(tmp_path)
    labelling = rasters.read("index_masks", labels, images)
    assert labelling.values == {0: "background", 1: "cat", 2: "dog"}
    assert labelling.names == ["background", "cat", "dog"]
    assert [each.image for each in labelling.images] == [f"im{i}_jpg.rf.0a1b" for i in range(3)]
    assert rasters.counts("index_masks", labelling) == rasters.COUNTS


@pytest.mark.parametrize("line", ["x, cat", "1", "1,", "99999999999, cat", "0, cat", "-1, a"])
def test_a_wrong_line_of_roboflow_is_named(tmp_path, line):
    labels, images = rasters.roboflow(tmp_path)
    (labels / "_classes.csv").write_text(f"Pixel Value, Class\n0, background\n{line}\n")
    with pytest.raises(InputError, match=r"_classes\.csv, line 3"):
        rasters.read("index_masks", labels, images)


LABELMAP = "# label:color_rgb:parts:actions\ndog:36,179,83::\nbackground:0,0,0::\ncat:250,50,83::\n"


@pytest.mark.parametrize("place", ["SegmentationClass", "."])
def test_names_of_a_labelmap_go_by_the_colours_of_the_palette(tmp_path, place):
    # 255 is the void of VOC, and the palette is filled up with black.
    colors = np.zeros((256, 3), np.uint8)
    colors[:3], colors[255] = rasters.COLORS, (224, 224, 192)
    values = rasters.label()
    values[0, :9] = 255
    for stem in rasters.STEMS:
        rasters.save(
            rasters.palette_image(values, colors), tmp_path / "SegmentationClass" / f"{stem}.png"
        )
    (tmp_path / place / "labelmap.txt").write_text(f"{LABELMAP}ignored:224,224,192::\n")
    images = rasters.photos(tmp_path / "JPEGImages")
    for labels in (tmp_path, tmp_path / "SegmentationClass"):
        if labels == tmp_path or place == ".":
            assert rasters.detected(labels, images) == ["index_masks"]
        labelling = rasters.read("index_masks", labels, images)
        assert labelling.values == {0: "background", 1: "cat", 2: "dog"}
        assert labelling.names == ["dog", "background", "cat"]
        assert labelling.colors["cat"] == (250, 50, 83)
        assert rasters.counts("index_masks", labelling) == {0: 423, 1: 72, 2: 264, 255: 9}


def test_palettes_that_differ_are_read_as_colours(tmp_path):
    labels, images = rasters.SAMPLES["palette"][1](tmp_path)
    other = rasters.palette_image(np.uint8(2) - rasters.label(), rasters.COLORS[::-1])
    rasters.save(other, labels / "im1.png")
    assert rasters.detected(labels, images) == ["index_masks"]  # without a table indices count
    (labels / "labelmap.txt").write_text(LABELMAP)
    assert rasters.detected(labels, images) == ["colour_masks"]
    with pytest.raises(InputError, match="colour_masks"):
        rasters.read("index_masks", labels, images)
    labelling = rasters.read("colour_masks", labels, images)
    first, second = (rasters.counts("colour_masks", labelling, i) for i in (0, 1))
    assert first == second == {0: 424, 0xFA3253: 80, 0x24B353: 264}


def test_grey_labels_take_the_order_of_a_labelmap(tmp_path):
    labels, images = rasters.SAMPLES["grey"][1](tmp_path)
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    labelling = rasters.read("index_masks", labels, images)
    assert labelling.values == {0: "dog", 1: "background", 2: "cat"}


def test_machine_masks_of_supervisely(tmp_path):
    folder = tmp_path / "project/ds"
    for stem in rasters.STEMS:
        grey = np.repeat(rasters.label()[..., None], 3, 2)
        rasters.save(grey, folder / "masks_machine" / f"{stem}.png")
        rasters.save(rasters.COLORS[rasters.label()], folder / "masks_human" / f"{stem}.png")
    images = rasters.photos(folder / "img")
    table = tmp_path / "project/obj_class_to_machine_color.json"
    table.write_text('{"kiwi": [2, 2, 2], "lemon": [1, 1, 1]}')
    assert rasters.detected(folder / "masks_machine", images) == ["index_masks"]
    labelling = rasters.read("index_masks", folder / "masks_machine", images)
    assert labelling.values == {0: "background", 1: "lemon", 2: "kiwi"}
    assert labelling.names == ["background", "kiwi", "lemon"]
    assert rasters.detected(folder / "masks_human", images) == ["colour_masks"]
    assert rasters.read("colour_masks", folder / "masks_human", images).names == []
    for content in ("[]", '{"kiwi": [2, 2]}', '{"kiwi": [2, 2, 300]}', '{"": [1, 1, 1]}', "{"):
        table.write_text(content)
        assert rasters.detected(folder / "masks_machine", images) == []
        with pytest.raises(InputError, match="obj_class"):
            rasters.read("index_masks", folder / "masks_machine", images)


def test_names_of_labelme_and_of_the_voc_devkit(tmp_path):
    for stem in rasters.STEMS:
        path = tmp_path / "SegmentationClass" / f"{stem}.png"
        rasters.save(rasters.palette_image(rasters.label()), path)
    images = rasters.photos(tmp_path / "JPEGImages")
    assert rasters.read("index_masks", tmp_path, images).names == []
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    labelling = rasters.read("index_masks", tmp_path, images)
    assert len(labelling.names) == 21 and labelling.values[15] == "person"
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog\n")
    labelling = rasters.read("index_masks", tmp_path, images)
    assert labelling.values == {0: "_background_", 1: "cat", 2: "dog"}
    assert labelling.colors["dog"] == (36, 179, 83)
