"""Label images that annotation tools' libraries wrote."""

import numpy as np
import pytest

from tests.data.formats import rasters


@pytest.fixture(scope="module")
def datumaro():
    return pytest.importorskip("datumaro")


def export(datumaro, form, folder, background, colors):
    """COUNTS' labels of the classes cat and dog, as CVAT exports them through Datumaro."""
    parts = datumaro.components.annotation
    shift, values = int(background), rasters.label()
    names = ["background"] * shift + ["cat", "dog"]
    categories = {parts.AnnotationType.label: parts.LabelCategories.from_iterable(names)}
    if colors:
        table = {i: tuple(map(int, c)) for i, c in enumerate(rasters.COLORS[1 - shift :])}
        categories[parts.AnnotationType.mask] = parts.MaskCategories(table)
    image = datumaro.components.media.Image
    photo = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    items = [
        datumaro.DatasetItem(
            id=stem,
            subset="train",
            media=image.from_numpy(data=photo),
            annotations=[parts.Mask(values == i, label=i - 1 + shift) for i in (1, 2)],
        )
        for stem in rasters.STEMS
    ]
    dataset = datumaro.Dataset.from_iterable(items, categories=categories, media_type=image)
    dataset.export(str(folder), form, save_media=True)


@pytest.mark.parametrize("colors", [True, False])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("form", "labels", "images"),
    [
        ("voc_segmentation", ".", "JPEGImages"),
        ("voc_segmentation", "SegmentationClass", "JPEGImages"),
        ("camvid", "trainannot", "train"),
    ],
)
def test_masks_of_datumaro(datumaro, tmp_path, form, labels, images, background, colors):
    export(datumaro, form, tmp_path / "set", background, colors)
    labels, images = tmp_path / "set" / labels, tmp_path / "set" / images
    assert rasters.detected(labels, images) == ["colour_masks"]
    labelling = rasters.read("colour_masks", labels, images)
    assert labelling.names == ["background", "cat", "dog"] and not labelling.problems
    assert [each.image for each in labelling.images] == list(rasters.STEMS)
    pixels = rasters.counts("colour_masks", labelling)
    assert {labelling.values[value]: count for value, count in pixels.items()} == {
        "background": 424,
        "cat": 80,
        "dog": 264,
    }


@pytest.mark.parametrize("background", [True, False])
def test_cityscapes_folders_of_datumaro(datumaro, tmp_path, monkeypatch, background):
    exporter = pytest.importorskip("datumaro.plugins.data_formats.cityscapes").CityscapesExporter
    save = exporter.save_mask

    def save_mask(self, path, mask, *args, dtype=np.uint8, **options):
        # Its pictures of instances, not read here, are of a mode that Pillow no longer writes.
        save(self, path, mask, *args, dtype=np.uint8, **options)

    monkeypatch.setattr(exporter, "save_mask", save_mask)
    export(datumaro, "cityscapes", tmp_path, background, True)
    labels, images = tmp_path / "gtFine/train", tmp_path / "leftImg8bit/train"
    assert rasters.detected(labels, images) == ["cityscapes"]
    labelling = rasters.read("cityscapes", labels, images)
    assert labelling.values == {0: "background", 1: "cat", 2: "dog"}
    assert [each.image for each in labelling.images] == [f"im{i}_leftImg8bit" for i in range(3)]
    assert rasters.counts("cityscapes", labelling) == rasters.COUNTS


def test_masks_of_labelme(tmp_path):
    """Its script labelme2voc.py writes them by imgviz; -1, which is ignored, is stored as 255."""
    imgviz = pytest.importorskip("imgviz")
    values = rasters.label()
    values[0, :8] = 255
    (tmp_path / "SegmentationClassPNG").mkdir()
    for stem in rasters.STEMS:
        imgviz.io.lblsave(str(tmp_path / "SegmentationClassPNG" / f"{stem}.png"), values)
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog\n")
    images = rasters.photos(tmp_path / "JPEGImages")
    assert rasters.detected(tmp_path, images) == ["index_masks"]
    labelling = rasters.read("index_masks", tmp_path, images)
    assert labelling.values == {0: "_background_", 1: "cat", 2: "dog"}
    assert labelling.colors["cat"] == (128, 0, 0)
    assert rasters.counts("index_masks", labelling) == {0: 424, 1: 72, 2: 264, 255: 8}
