"""Discs whose outlines are known, and files of labels that have them."""

import json

import numpy as np
from pycocotools import mask as coco_mask

SIZE = 120, 160
IMAGES, OBJECTS = 4, 3
# Of each image the ground, and of each object, a disc.
GROUNDS = [(40 * i + 20, 0, 0) for i in range(IMAGES)]
DISC = (0, 200, 0)


def ring(x, y, radius):
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1)
    return points.clip(0, [SIZE[1], SIZE[0]]).round(2).ravel().tolist()


def mask_of(polygon):
    return coco_mask.decode(coco_mask.frPyObjects([polygon], *SIZE))[..., 0]


def write_coco(path, truth, segmentation=lambda polygon: [polygon]):
    annotations = [
        {
            **{"image_id": i, "category_id": 1, "iscrowd": 0},
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": segmentation(polygon),
        }
        for i, objects in enumerate(truth)
        for polygon, (x0, y0, x1, y1) in objects
    ]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": SIZE[1], "height": SIZE[0]}
            for i in range(len(truth))
        ],
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "disc"}],
    }
    path.write_text(json.dumps(content))
    return str(path)


def write_labelme(root, truth):
    for i, objects in enumerate(truth):
        shapes = [
            {
                "label": "disc",
                "shape_type": "polygon",
                "points": np.reshape(polygon, (-1, 2)).tolist(),
            }
            for polygon, _ in objects
        ]
        content = {"shapes": shapes, "imagePath": f"{i}.png", "imageData": None}
        (root / f"{i}.json").write_text(json.dumps({**content, "flags": {}, "version": "5.5.0"}))
    return str(root)


def rle(polygon):
    found = coco_mask.encode(np.asfortranarray(mask_of(polygon)))
    return {"size": [*SIZE], "counts": found["counts"].decode()}


def runs(polygon):
    flat = np.r_[0, mask_of(polygon).ravel(order="F"), 0]
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff([0, *edges, SIZE[0] * SIZE[1]]).tolist()
    return {"size": [*SIZE], "counts": counts}


SOURCES = {
    "plain COCO, polygons": lambda root, truth: write_coco(root.parent / "boxes.json", truth),
    "plain COCO, RLE": lambda root, truth: write_coco(root.parent / "boxes.json", truth, rle),
    "COCO of runs": lambda root, truth: write_coco(root.parent / "boxes.json", truth, runs),
    "labelme": write_labelme,
}
