"""The same truth in every format gives equal records, and trains by a config without Python."""

import json
import math
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from tests.helpers import REPOSITORY, topformer
from topformer_d2.data.coco_json import corners
from topformer_d2.data.folders import register_folder
from topformer_d2.data.formats import FORMATS
from topformer_d2.data.images import read_label
from topformer_d2.data.registered import load_records

WIDTH, HEIGHT = 64, 48
CLASSES = ["cat", "dog"]
COLORS = {"background": (0, 0, 0), "cat": (200, 10, 30), "dog": (20, 90, 160)}
# Of each image: (class, x0, y0, x1, y1), the larger first; those of the second do not overlap.
TRUTH = {
    "a": [("dog", 4, 6, 44, 40), ("cat", 30, 20, 60, 44)],
    "b": [("cat", 2, 2, 22, 20), ("dog", 40, 30, 62, 46)],
    "c": [],
    # 20 in all.
    **{
        f"d{i:02d}": [("dog", 4 + i, 6, 24 + i, 30), ("cat", 2, 31 + i % 5, 60, 46)]
        for i in range(17)
    },
}


def label_of(objects):
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for name, x0, y0, x1, y1 in objects:
        label[y0:y1, x0:x1] = 1 + CLASSES.index(name)
    return label


def ring(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def write_coco(root):
    images, annotations = [], []
    for i, (stem, objects) in enumerate(TRUTH.items()):
        images.append({"id": i, "file_name": f"{stem}.png", "width": WIDTH, "height": HEIGHT})
        for name, x0, y0, x1, y1 in objects:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": str(i),  # as text, which makes it no plain JSON
                    "category_id": CLASSES.index(name),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "c.json").write_text(json.dumps(content))
    return root / "c.json"


def write_labelme(root):
    for stem, objects in TRUTH.items():
        shapes = [
            {"label": name, "points": ring(*box), "shape_type": "polygon"} for name, *box in objects
        ]
        size = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
        content = {"version": "5.5.0", "imagePath": f"{stem}.png", "shapes": shapes, **size}
        (root / f"{stem}.json").write_text(json.dumps(content))
    return root


def write_cvat(root):
    lines = ["<annotations><version>1.1</version><meta><task><labels>"]
    for name in CLASSES:
        lines.append(f"<label><name>{escape(name)}</name></label>")
    lines.append("</labels></task></meta>")
    for i, (stem, objects) in enumerate(TRUTH.items()):
        lines.append(f'<image id="{i}" name="{stem}.png" width="{WIDTH}" height="{HEIGHT}">')
        for name, *box in objects:
            points = ";".join(f"{x},{y}" for x, y in ring(*box))
            lines.append(f'<polygon label="{name}" points="{points}" occluded="0" z_order="0"/>')
        lines.append("</image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    return root / "annotations.xml"


def write_label_studio(root):
    tasks = []
    for i, (stem, objects) in enumerate(TRUTH.items()):
        results = []
        for name, *box in objects:
            points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ring(*box)]
            value = {"points": points, "polygonlabels": [name]}
            size = {"original_width": WIDTH, "original_height": HEIGHT}
            results.append({"type": "polygonlabels", "value": value, "to_name": "image", **size})
        data = {"image": f"/data/upload/1/0a1b2c3d-{stem}.png"}
        tasks.append({"id": i, "data": data, "annotations": [{"id": i, "result": results}]})
    (root / "export.json").write_text(json.dumps(tasks))
    return root / "export.json"


def write_yolo(root):
    (root / "classes.txt").write_text("\n".join(CLASSES))
    for stem, objects in TRUTH.items():
        lines = []
        for name, *box in objects:
            numbers = [v for x, y in ring(*box) for v in (x / WIDTH, y / HEIGHT)]
            lines.append(" ".join(map(str, [CLASSES.index(name), *numbers])))
        (root / f"{stem}.txt").write_text("\n".join(lines))
    return root


def write_voc(root):
    for stem, objects in TRUTH.items():
        lines = [f"<annotation><filename>{stem}.png</filename><size><width>{WIDTH}</width>"]
        lines.append(f"<height>{HEIGHT}</height><depth>3</depth></size>")
        for name, x0, y0, x1, y1 in objects:
            edges = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
            box = "".join(f"<{key}>{value}</{key}>" for key, value in edges.items())
            lines.append(f"<object><name>{name}</name><bndbox>{box}</bndbox></object>")
        (root / f"{stem}.xml").write_text("\n".join([*lines, "</annotation>"]))
    return root


def write_supervisely(root):
    classes = [{"title": n, "shape": "polygon", "color": "#ff0000"} for n in CLASSES]
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    (root / "ann").mkdir()
    for stem, objects in TRUTH.items():
        found = [
            {
                "classTitle": name,
                "geometryType": "polygon",
                "points": {"exterior": ring(*box), "interior": []},
            }
            for name, *box in objects
        ]
        content = {"size": {"width": WIDTH, "height": HEIGHT}, "tags": [], "objects": found}
        (root / "ann" / f"{stem}.png.json").write_text(json.dumps(content))
    return root / "ann"


def write_index_masks(root):
    for stem, objects in TRUTH.items():
        image = Image.fromarray(label_of(objects))
        image.putpalette([channel for color in COLORS.values() for channel in color])
        image.save(root / f"{stem}.png")
    return root


def write_colour_masks(root):
    lines = [f"{name},{','.join(map(str, color))}" for name, color in COLORS.items()]
    (root / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines]))
    palette = np.array([*COLORS.values()], np.uint8)
    for stem, objects in TRUTH.items():
        Image.fromarray(palette[label_of(objects)]).save(root / f"{stem}.png")
    return root


def write_binary_masks(root):
    for stem, objects in TRUTH.items():
        for i, name in enumerate(CLASSES, start=1):
            (root / name).mkdir(exist_ok=True)
            cv2.imwrite(str(root / name / f"{stem}.png"), 255 * (label_of(objects) == i))
    return root


WRITERS = {
    "coco": write_coco,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "label_studio": write_label_studio,
    "yolo": write_yolo,
    "voc": write_voc,
    "supervisely": write_supervisely,
    "index_masks": write_index_masks,
    "colour_masks": write_colour_masks,
    "binary_masks": write_binary_masks,
}
WITH_BOXES = [name for name in WRITERS if "instances" in FORMATS[name].tasks]


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    rng = np.random.default_rng(0)
    for stem in TRUTH:
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"{stem}.png"), pixels)
    return root


@pytest.fixture
def labels(tmp_path, images, request):
    """The path of the labels that `request.param`'s writer writes."""
    root = tmp_path / "labels"
    root.mkdir()
    return str(WRITERS[request.param](root))


def forget(*names):
    for name in names:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)


def records_of(**entry):
    forget("own")
    register_folder("own", entry, f"{entry['IMAGES']}_cache")
    try:
        return load_records("own"), MetadataCatalog.get("own").as_dict()
    finally:
        forget("own")


def test_every_format_is_here():
    assert {*WRITERS, "cityscapes"} == {*FORMATS}  # whose classes are its own


@pytest.mark.parametrize("labels", WRITERS, indirect=True)
def test_pixels(images, labels, request):
    keys = {}
    if "index_masks" in request.node.name:
        keys["CLASSES"] = ["background", *CLASSES]
    records, metadata = records_of(IMAGES=str(images), LABELS=labels, **keys)
    assert metadata["stuff_classes"] == ["background", *CLASSES]
    assert [record["file_name"] for record in records] == [f"{images}/{s}.png" for s in TRUTH]
    for record, objects in zip(records, TRUTH.values(), strict=True):
        expected = label_of(objects)
        assert (read_label(record["sem_seg_file_name"]) == expected).all()
        assert (record["width"], record["height"]) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("labels", WITH_BOXES, indirect=True)
def test_boxes(images, labels):
    records, metadata = records_of(IMAGES=str(images), BOXES=labels)
    assert metadata["thing_classes"] == CLASSES
    found = [
        sorted((CLASSES[a["category_id"]], *corners(a)) for a in record["annotations"])
        for record in records
    ]
    for boxes, objects in zip(found, TRUTH.values(), strict=True):
        assert len(boxes) == len(objects)
        for box, (name, *edges) in zip(boxes, sorted(objects), strict=True):
            assert box[0] == name and box[1:] == pytest.approx(edges, abs=1e-9)


CONFIG = """\
_BASE_: {base}
DATASETS:
  TRAIN: ("mine_train",)
  TEST: ("mine_val",)
  FOLDERS:
    mine_train: {{IMAGES: images, SHARE: [0, 0.6], {keys}}}
    mine_val: {{IMAGES: images, SHARE: [0.6, 1], {keys}}}
INPUT: {{MIN_SIZE_TRAIN: [48], CROP: {{SIZE: [48, 48]}}, MIN_SIZE_TEST: 48}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 10}}
OUTPUT_DIR: output
"""


@pytest.mark.parametrize(
    ("labels", "iterations"),
    [
        ("labelme", 1),
        *(pytest.param(name, 10, marks=pytest.mark.slow) for name in WRITERS),
    ],
    indirect=["labels"],
)
def test_a_config_of_ten_lines_trains(images, labels, iterations, tmp_path, request):
    """What the labels can be for; the config alone says where they are."""
    assert CONFIG.count("\n") < 12
    path = labels.removeprefix(f"{tmp_path}/")
    keys = f"LABELS: {path}"
    if request.node.callspec.params["labels"] in WITH_BOXES:
        keys += f", BOXES: {path}"
        base = "multitask_lite_topformer_t_synthetic"
    else:
        base = "seg_topformer_t_synthetic"
        if "index_masks" in request.node.name:
            keys += f", CLASSES: [{', '.join(['background', *CLASSES])}]"
    base = REPOSITORY / f"configs/{base}.yaml"
    (tmp_path / "mine.yaml").write_text(CONFIG.format(base=base, keys=keys))
    small = ["DATALOADER.NUM_WORKERS", 0, "SOLVER.MAX_ITER", iterations, "MODEL.DEVICE", "cpu"]
    try:
        done = topformer("train", "--config-file", "mine.yaml", *small, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-1000:]
    finally:
        forget("mine_train", "mine_val")
    metrics = {}
    for line in (tmp_path / "output/metrics.json").read_text().splitlines():
        metrics |= json.loads(line)
    assert math.isfinite(metrics["total_loss"])
    assert 0 < metrics["sem_seg/mIoU"] <= 100 and ("bbox/AP" in metrics) == ("BOXES" in keys)
