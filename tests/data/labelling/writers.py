"""Small datasets for tests."""

import json

from PIL import Image

from topformer_d2.data.images import read_label


def write_image(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 9, 9)).save(path)


def write_labelme(path, *shapes, size=(40, 30)):
    """`shapes`: (label, x0, y0, x1, y1) of squares drawn as polygons."""
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": label, "points": [[a, b], [c, b], [c, d], [a, d]], "shape_type": "polygon"}
            for label, a, b, c, d in shapes
        ],
        "imagePath": f"{path.stem}.jpg",
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }
    path.write_text(json.dumps(content))


def drawn(record):
    return read_label(record["sem_seg_file_name"])
