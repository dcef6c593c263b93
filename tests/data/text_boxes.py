"""A format of datasets in one module: boxes as a text file an image, and a list of class names.

A line of a text file is "name x y width height" in pixels.
"""

import os

from PIL import Image

from topformer_d2.data.formats import IMAGES, DatasetFormat
from topformer_d2.data.source_cache import parse_once


def classes(paths, ignore_label):
    with open(paths["NAMES"]) as f:
        return {"thing_classes": f.read().split()}


def parse(folder):
    """{stem: [(name, [x, y, width, height])]} of a folder."""
    found = {}
    for file in sorted(os.listdir(folder)):
        with open(os.path.join(folder, file)) as f:
            lines = [line.split() for line in f]
        found[os.path.splitext(file)[0]] = [(name, list(map(float, box))) for name, *box in lines]
    return found


def records(dataset_name, paths):
    names = classes(paths, 255)["thing_classes"]
    found = []
    for stem, boxes in parse_once(parse, paths["TEXTS"]).items():
        image = os.path.join(paths[IMAGES], f"{stem}.png")
        width, height = Image.open(image).size
        annotations = [
            {"bbox": box, "bbox_mode": 1, "category_id": names.index(name)} for name, box in boxes
        ]
        size = {"width": width, "height": height}
        found.append({"file_name": image, "image_id": stem, **size, "annotations": annotations})
    return found


FORMAT = DatasetFormat(
    name="text_boxes",
    tasks=("instances",),
    keys=("TEXTS", "NAMES"),
    class_keys=("NAMES",),
    classes=classes,
    records=records,
)
