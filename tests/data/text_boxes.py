"""A format of datasets in one module: boxes as a text file an image.

A line of a text file is "name x y width height" in pixels.
"""

import os

from topformer_d2.data.formats import DatasetFormat, LabelledImage, Labelling, Shape
from topformer_d2.errors import InputError


def detect(path, images):
    return os.path.isdir(path) and any(name.endswith(".boxes") for name in os.listdir(path))


def read(path, images):
    found, names = [], set()
    for file in sorted(os.listdir(path)):
        shapes = []
        with open(os.path.join(path, file)) as f:
            for line in f:
                name, *numbers = line.split()
                if len(numbers) != 4:
                    raise InputError(f"{file}: {line!r}; it takes name x y width height")
                x, y, width, height = map(float, numbers)
                shapes.append(Shape(name, (x, y, x + width, y + height)))
                names.add(name)
        stem = os.path.splitext(file)[0]
        found.append(LabelledImage(stem, shapes=tuple(shapes), source=os.path.join(path, file)))
    return Labelling(found, sorted(names))


FORMAT = DatasetFormat("text_boxes", ("instances",), detect, read)
