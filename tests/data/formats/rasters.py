"""Small datasets whose labels have a value for each pixel, each with three images of 24x32."""

import json

import numpy as np
from PIL import Image

from topformer_d2.data.formats import binary_masks, cityscapes, colour_masks, index_masks

FORMATS = {
    each.FORMAT.name: each.FORMAT for each in (index_masks, colour_masks, binary_masks, cityscapes)
}
COLORS = np.array([(0, 0, 0), (250, 50, 83), (36, 179, 83)], np.uint8)
# Pixels of the values 0, 1 and 2.
COUNTS = {0: 424, 1: 80, 2: 264}
STEMS = ("im0", "im1", "im2")


def label():
    """(24, 32) uint8 of 0, 1 and 2, of which there are as many as COUNTS says."""
    values = np.zeros((24, 32), np.uint8)
    values[:10, :8], values[12:, 10:] = 1, 2
    return values


def save(pixels, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)


def palette_image(values, colors=COLORS):
    image = Image.fromarray(values)
    image.putpalette(np.asarray(colors, np.uint8).ravel().tolist())
    return image


def photos(folder, names=STEMS, extension="jpg", seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        save(pixels, folder / f"{name}.{extension}")
    return folder


def _plain(make, names="{}.png"):
    def build(root):
        for stem in STEMS:
            save(make(label()), root / "labels" / names.format(stem))
        return root / "labels", photos(root / "images")

    return build


def roboflow(root):
    for stem in STEMS:
        save(label(), root / f"{stem}_jpg.rf.0a1b_mask.png")
    (root / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    photos(root, [f"{stem}_jpg.rf.0a1b" for stem in STEMS])
    return root, root


def camvid(root):
    build = _plain(lambda values: COLORS[values], "{}_L.png")(root)
    (root / "class_dict.csv").write_text("name,r,g,b\nbg,0,0,0\ncat,250,50,83\ndog,36,179,83\n")
    return build


def folders_of_classes(root):
    for stem in STEMS:
        save(np.uint8(255) * (label() == 1), root / "masks/cat" / f"{stem}.png")
        save(label() == 2, root / "masks/dog" / f"{stem}.png")
    return root / "masks", photos(root / "images")


def suffixes_of_classes(root):
    for stem in STEMS:
        save(label() // 2, root / "masks" / f"{stem}_traffic_light.png")
        save(palette_image(np.uint8(label() == 1)), root / "masks" / f"{stem}-cat.png")
    return root / "masks", photos(root / "images")


def suffixes_beside_images(root):
    for stem in STEMS:
        save(label() // 2, root / f"{stem}_dog.png")
        save(np.uint8(label() == 1), root / f"{stem}_cat.png")
    return root, photos(root)


def cityscapes_folders(root, kinds=("labelIds",)):
    """Value 1 is road, 2 is car, and 0 is not learned from."""
    values = {"labelIds": (0, 7, 26), "labelTrainIds": (255, 0, 13)}
    for city in ("aachen", "ulm"):
        frame = f"{city}_000000_000019"
        folder = root / "gtFine/train" / city
        for kind in kinds:
            table = np.array(values[kind], np.uint8)
            save(table[label()], folder / f"{frame}_gtFine_{kind}.png")
        save(COLORS[label()], folder / f"{frame}_gtFine_color.png")
        (folder / f"{frame}_gtFine_polygons.json").write_text("{}")
        photos(root / "leftImg8bit/train" / city, [f"{frame}_leftImg8bit"], "png")
    return root / "gtFine/train", root / "leftImg8bit/train"


def labelme(root):
    for stem in STEMS:
        (root / f"{stem}.json").write_text(json.dumps({"shapes": [], "imagePath": f"{stem}.png"}))
    photos(root, extension="png")
    return root, root


def labelme_elsewhere(root):
    build = _plain(lambda values: values)(root)
    for stem in STEMS:
        (root / "labels" / f"{stem}.json").write_text("{}")
    return build


def photographs(root):
    return photos(root / "images"), root / "images"


def photographs_as_png(root):
    return photos(root / "other", extension="png"), photos(root / "images")


# {how it lies: (its one format or None, what writes it to a folder)}
SAMPLES = {
    "grey": ("index_masks", _plain(lambda values: values)),
    "palette": ("index_masks", _plain(palette_image)),
    "16 bit": ("index_masks", _plain(lambda values: values.astype(np.uint16) * 300)),
    "grey as RGB": ("index_masks", _plain(lambda values: np.repeat(values[..., None], 3, 2))),
    "suffix": ("index_masks", _plain(lambda values: values // 2, "{}_mask.png")),
    "TIFF": ("index_masks", _plain(lambda values: values.astype(np.int32), "{}.tif")),
    "BMP": ("index_masks", _plain(lambda values: values, "{}.BMP")),
    "GIF": ("index_masks", _plain(palette_image, "{}.gif")),
    "Roboflow": ("index_masks", roboflow),
    "colours": ("colour_masks", _plain(lambda values: COLORS[values])),
    "CamVid": ("colour_masks", camvid),
    "folders": ("binary_masks", folders_of_classes),
    "suffixes": ("binary_masks", suffixes_of_classes),
    "suffixes beside images": ("binary_masks", suffixes_beside_images),
    "Cityscapes": ("cityscapes", cityscapes_folders),
    "LabelMe": (None, labelme),
    "LabelMe with pictures of labels": (None, labelme_elsewhere),
    "photographs": (None, photographs),
    "photographs as PNG": (None, photographs_as_png),
}


def detected(labels, images):
    return [name for name, each in FORMATS.items() if each.detect(str(labels), str(images))]


def read(name, labels, images):
    return FORMATS[name].read(str(labels), str(images))


def counts(name, labelling, index=0):
    """{value: pixels} of an image of a labelling."""
    pixels = FORMATS[name].decode(labelling.images[index].files, labelling.names)
    assert pixels.shape == (24, 32) and pixels.dtype.kind in "iu"
    return dict(
        zip(*(each.tolist() for each in np.unique(pixels, return_counts=True)), strict=True)
    )
